"""Arguments that make no sense are an error before anything is done."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mlflow_sysmetrics.training.trainer.engines")

from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.training.trainer import Trainer

BATCHES = [(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))]


def trainer(**asked: Any) -> Trainer:
    model = torch.nn.Linear(3, 2)
    given = {
        "model": model,
        "train_loader": BATCHES,
        "val_loader": BATCHES,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "criterion": torch.nn.CrossEntropyLoss(),
        "device": "cpu",
    }
    return Trainer(**{**given, **asked})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_epochs": 0}, "num_epochs=0 is no whole number from 1 on"),
        ({"num_epochs": 2.5}, "num_epochs=2.5 is no whole number"),
        ({"num_epochs": True}, "num_epochs=True"),
        ({"patience": 0}, "patience=0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0"),
        ({"logging_steps": 0}, "logging_steps=0"),
        ({"system_metrics_interval": -1}, "system_metrics_interval=-1"),
        ({"gradient_clip": 0}, "gradient_clip=0 is no number above 0"),
        ({"gradient_clip": float("nan")}, "gradient_clip=nan"),
        ({"min_delta": -0.1}, "min_delta=-0.1 is no number from 0 on"),
        ({"upload_timeout": "1"}, "upload_timeout='1'"),
        ({"scheduler_interval": "batch"}, "scheduler_interval='batch' is none of step, epoch"),
        ({"amp_dtype": "float8"}, "amp_dtype='float8' is none of float16, bfloat16"),
        ({"early_stopping_mode": "up"}, "early_stopping_mode='up' is none of min, max"),
        ({"train_loader": []}, "train_loader is empty"),
        ({"val_loader": []}, "val_loader is empty"),
        ({"early_stopping_metric": "f1"}, "early_stopping_metric='f1' is none of train_loss, .*val_f1_macro"),
        ({"early_stopping_metric": "val_loss", "val_loader": None}, "is none of train_loss, train_accuracy$"),
        (
            {"early_stopping_metric": "f1", "compute_metrics": dict},
            "what compute_metrics returns begins with",
        ),
        ({"early_stopping_metric": "val_t", "compute_metrics": dict}, "pass early_stopping_mode="),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)},
            "optimizer has none of the model's parameters",
        ),
    ],
)
def test_a_value_that_is_out_of_range_names_itself(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"criterion": 3}, "criterion=3 cannot be called"),
        ({"prepare_batch": "x"}, "prepare_batch='x' cannot be called"),
        ({"train_loader": None}, "train_loader=None cannot be iterated; pass a DataLoader"),
        ({"optimizer": "adam"}, "optimizer is a str and model a Linear"),
        ({"scheduler": 0.1}, r"scheduler=0.1 has no step\(\)"),
    ],
)
def test_what_is_of_the_wrong_kind_names_itself(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trainer(**asked)


def test_a_device_that_torch_does_not_know_is_torchs_own_error() -> None:
    with pytest.raises(RuntimeError, match="device type"):
        trainer(device="gpu")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_a_precision_is_a_name_or_a_type(dtype: Any) -> None:
    trainer(amp_dtype=dtype)


def test_without_a_run_nothing_is_trained() -> None:
    asked: list[int] = []

    class Loader(list[Any]):
        def __iter__(self) -> Any:
            asked.append(1)
            return super().__iter__()

    with pytest.raises(NoActiveRunError, match=r"Trainer.train\(\) needs a run"):
        trainer(train_loader=Loader(BATCHES)).train()
    assert not asked


def test_validation_needs_a_loader() -> None:
    with pytest.raises(ValueError, match="no val_loader"):
        trainer(val_loader=None).validate()


@pytest.mark.parametrize("absent", ["torch", "ignite"])
def test_what_is_not_installed_is_named_with_its_extra(absent: str) -> None:
    """The door opens without torch; who walks through it is told what to install."""
    code = f"""
        import sys
        sys.modules[{absent!r}] = None
        from mlflow_sysmetrics.training.trainer import Trainer, run_to_resume
        assert run_to_resume("nowhere") is None
        assert not sys.modules.get("torch")
        class Model:
            parameters = lambda self: [self]
        class Optimizer:
            def __init__(self, model): self.param_groups = [{{"params": [model]}}]
        model = Model()
        try:
            Trainer(model, [1], None, Optimizer(model), print, "cpu")
        except ModuleNotFoundError as error:
            assert '{absent}, which is not installed: pip install "mlflow-sysmetrics[train]"' in str(error), error
        else:
            raise AssertionError
    """
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], check=True)
