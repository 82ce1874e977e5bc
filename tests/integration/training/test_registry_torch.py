"""PyTorch models in a real registry: they serve whatever the sample and the format."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import mlflow
import numpy as np
import yaml
from packaging.version import Version
from registry_store import REQUIREMENTS, Registry

from mlflow_sysmetrics.training.registry import load_model, promote, register_model, save_model_to_mlflow

pytest_plugins = ["registry_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("registry"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's, about the libraries that it finds
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
# They can be exported. MLflow is not asked: that would import all frameworks in each worker.
PT2 = Version(mlflow.__version__) >= Version("3.14")
FORMATS = [
    "pickle",
    pytest.param("pt2", marks=pytest.mark.skipif(not PT2, reason="this MLflow cannot export PyTorch models")),
]
nn = torch.nn


class Output(dict[str, Any]):
    """What Hugging Face's models return."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Tokens(nn.Module):
    """Classifies tokens, like a Hugging Face model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 3)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return Output(logits=(self.embed(input_ids) * attention_mask[..., None]).mean(1))


def net() -> Any:
    made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    return made.train()


def register(model: Any, sample: Any, **named: Any) -> Any:
    return register_model(model, "ships", sample, "Production", pip_requirements=REQUIREMENTS, **named)


def in_evaluation(model: Any, batch: Any) -> Any:
    was = model.training
    with torch.no_grad():
        result = model.eval()(batch).numpy()
    model.train(was)
    return result


@pytest.mark.parametrize("serialization_format", FORMATS)
def test_a_model_registered_with_one_row_serves_batches_of_any_size(serialization_format: str) -> None:
    model = net()
    register(model, torch.randn(1, 4), serialization_format=serialization_format)
    served, flavoured = load_model("ships"), mlflow.pytorch.load_model("models:/ships/1")
    for rows in (1, 64):
        batch = torch.randn(rows, 4)
        expected = in_evaluation(model, batch)
        np.testing.assert_allclose(served.predict(batch.numpy()), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(flavoured(batch).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_model_can_be_registered_without_a_sample() -> None:
    register_model(nn.Linear(10, 2), "ships", stage="Staging", pip_requirements=REQUIREMENTS)
    assert load_model("ships", "staging").predict(np.ones((3, 10), dtype=np.float32)).shape == (3, 2)


def test_a_bfloat16_model_takes_and_returns_what_its_signature_says() -> None:
    model = nn.Linear(4, 2).bfloat16()
    register(model, torch.randn(1, 4).bfloat16())
    served = load_model("ships")
    assert [one.type.name for one in served.metadata.signature.inputs] == ["float32"]
    batch = torch.randn(3, 4)
    expected = model(batch.bfloat16()).float().detach().numpy()
    np.testing.assert_array_equal(served.predict(batch.numpy()), expected)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(4, 2, device="meta"), "'weight' is on the device meta"),
        (nn.LazyLinear(2), "'weight' has no shape before the first batch"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_model_without_weights_is_rejected_and_unchanged(registry: Registry, model: Any, said: str) -> None:
    kind = type(model)
    with pytest.raises(ValueError, match=said):
        register(model, torch.randn(1, 4))
    assert type(model) is kind
    assert registry.is_empty()


def test_several_tensors_are_served_by_name() -> None:
    ids = torch.ones(1, 5, dtype=torch.long)
    model = Tokens()
    register(model, {"input_ids": ids, "attention_mask": ids})
    served = load_model("ships")
    batch = torch.randint(0, 10, (64, 5))
    expected = model(batch, torch.ones(64, 5))["logits"].detach().numpy()
    given = {"input_ids": batch.numpy(), "attention_mask": np.ones((64, 5), dtype=np.int64)}
    np.testing.assert_allclose(served.predict(given), expected, rtol=1e-6)


def test_a_scoring_server_accepts_several_tensors() -> None:
    from mlflow.pyfunc import scoring_server

    ids = torch.ones(1, 5, dtype=torch.long)
    register(Tokens(), {"input_ids": ids, "attention_mask": ids})
    served = load_model("ships")
    rows = np.ones((64, 5), dtype=int).tolist()
    body = json.dumps({"inputs": {"input_ids": rows, "attention_mask": rows}})
    answer = scoring_server.invocations(body, "application/json", served, served.metadata.get_input_schema())
    assert answer.status == 200
    assert len(json.loads(answer.response)["predictions"]) == 64


def test_a_version_prints_as_one_line() -> None:
    version = register(net(), torch.randn(1, 4))
    assert str(version).startswith("ships, version 1, stage Production")
    assert "\n" not in repr(version)
    assert isinstance(version, mlflow.entities.model_registry.ModelVersion)
    assert str(pickle.loads(pickle.dumps(version))) == str(version)
    assert str(promote("ships", 1, "Archived")).startswith("ships, version 1, stage Archived")


def test_a_model_is_logged_without_being_registered() -> None:
    model = net().eval()
    uri = save_model_to_mlflow(model, sample_input=torch.randn(2, 4), pip_requirements=REQUIREMENTS)
    assert not mlflow.MlflowClient().search_registered_models()
    served = mlflow.pyfunc.load_model(uri)
    assert served.metadata.signature is not None
    rows = np.ones((3, 4), dtype=np.float32)
    np.testing.assert_allclose(served.predict(rows), model(torch.ones(3, 4)).detach().numpy(), rtol=1e-5)


def test_what_serving_needs_travels_with_the_model(tmp_path: Path) -> None:
    """No index has this package's version, so `mlflow models serve` could not install it."""
    own = tmp_path / "mine.py"
    own.write_text("ANSWER = 42")
    ids = torch.ones(1, 5, dtype=torch.long)
    register(Tokens(), (ids, ids), code_paths=[str(own)])
    served = load_model("ships")
    folder = Path(mlflow.artifacts.download_artifacts("models:/ships/1"))
    (copy,) = (folder / "code").glob("mlflow_sysmetrics_serving_*.py")
    assert (
        yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]["loader_module"]
        == copy.stem
    )
    assert (folder / "code" / "mine.py").exists()
    assert "mlflow-sysmetrics" not in (folder / "requirements.txt").read_text()
    assert not [node for node in imports_of(copy) if node.startswith("mlflow_sysmetrics")]
    assert served.predict({"input_ids": ids.numpy(), "attention_mask": ids.numpy()}).shape[0] == 1


def imports_of(file: Path) -> list[str]:
    """Returns the names of the modules that a file imports, also inside functions."""
    tree = ast.walk(ast.parse(file.read_text()))
    found = []
    for node in tree:
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [one.name for one in node.names]
    return found


def test_a_plain_model_has_mlflows_own_loader() -> None:
    register(net(), torch.randn(1, 4))
    folder = Path(mlflow.artifacts.download_artifacts("models:/ships/1"))
    assert "mlflow-sysmetrics" not in (folder / "requirements.txt").read_text()
    assert not list(folder.glob("code/*"))


def test_the_signature_has_a_free_batch_axis() -> None:
    register(net(), torch.randn(1, 4))
    signature = load_model("ships").metadata.signature
    assert [one.shape for one in (*signature.inputs.inputs, *signature.outputs.inputs)] == [(-1, 4), (-1, 2)]


def test_the_model_continues_training_unchanged() -> None:
    model = net()
    weights = [id(one) for one in model.parameters()]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    register(model, torch.randn(1, 4, generator=torch.Generator()))
    assert torch.rand(1) == expected
    assert all(part.training for part in model.modules())
    assert [id(one) for one in model.parameters()] == weights


@pytest.mark.skipif(not PT2, reason="this MLflow cannot export PyTorch models")
def test_an_impossible_export_is_rejected_before_anything_is_logged(registry: Registry) -> None:
    ids = torch.ones(1, 5, dtype=torch.long)
    for model, sample in ((net(), None), (Tokens(), (ids, ids))):
        with pytest.raises(ValueError, match="traces the model"):
            register(model, sample, serialization_format="pt2")
    assert registry.is_empty()
