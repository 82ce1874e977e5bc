"""PyTorch models in a real registry: they serve whatever the sample and the format."""

from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import mlflow
import numpy as np
from registry_store import REQUIREMENTS, Registry

from mlflow_sysmetrics.training.registry import load_model, register_model

pytest_plugins = ["registry_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("registry"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's, about the libraries that it finds
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
# MLflow 3.14 and newer can export models.
PT2 = "serialization_format" in mlflow.pytorch.save_model.__code__.co_varnames
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


def test_a_model_that_needs_this_package_to_be_served_requires_it() -> None:
    ids = torch.ones(1, 5, dtype=torch.long)
    register(Tokens(), (ids, ids))
    path = mlflow.pyfunc.get_model_dependencies("models:/ships/1")
    with open(path, encoding="utf-8") as requirements:
        assert "mlflow-sysmetrics" in requirements.read()


def test_a_plain_model_does_not_require_this_package() -> None:
    register(net(), torch.randn(1, 4))
    path = mlflow.pyfunc.get_model_dependencies("models:/ships/1")
    with open(path, encoding="utf-8") as requirements:
        assert "mlflow-sysmetrics" not in requirements.read()


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
