"""Invalid arguments are an error before anything is done."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from installed import require

torch = pytest.importorskip("torch")
require("ignite")

from mlflow_sysmetrics.training.trainer import Trainer

pytestmark = pytest.mark.heavy

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
        ({"num_epochs": 0}, "num_epochs must be an integer >= 1, got 0"),
        ({"num_epochs": 2.5}, "num_epochs must be an integer >= 1, got 2.5"),
        ({"num_epochs": True}, "num_epochs must be an integer >= 1, got True"),
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be an integer >= 1, got 0"),
        ({"logging_steps": 0}, "logging_steps must be an integer >= 1, got 0"),
        ({"system_metrics_interval": -1}, "system_metrics_interval must be an integer >= 1, got -1"),
        ({"gradient_clip": 0}, "gradient_clip must be a number > 0, got 0"),
        ({"gradient_clip": float("nan")}, "gradient_clip must be a number > 0, got nan"),
        ({"min_delta": -0.1}, "min_delta must be a number >= 0, got -0.1"),
        ({"upload_timeout": "1"}, "upload_timeout must be a number >= 0, got '1'"),
        ({"scheduler_interval": "batch"}, "scheduler_interval must be one of 'step', 'epoch', got 'batch'"),
        ({"amp_dtype": "float8"}, "amp_dtype must be one of 'float16', 'bfloat16', got 'float8'"),
        ({"early_stopping_mode": "up"}, "early_stopping_mode must be one of 'min', 'max', got 'up'"),
        ({"train_loader": []}, "train_loader is empty"),
        ({"val_loader": []}, "val_loader is empty"),
        (
            {"early_stopping_metric": "f1"},
            "early_stopping_metric must be one of train_loss, .*val_f1_macro.*, got 'f1'",
        ),
        (
            {"early_stopping_metric": "val_loss", "val_loader": None},
            "must be one of train_loss, train_accuracy, got 'val_loss'",
        ),
        (
            {"early_stopping_metric": "f1", "compute_metrics": dict},
            "or a value of compute_metrics with the prefix val_, got 'f1'",
        ),
        (
            {"early_stopping_metric": "val_t", "compute_metrics": dict},
            "cannot infer from the name whether to minimise or maximise 'val_t'; pass early_stopping_mode=",
        ),
        ({"early_stopping_mode": "min"}, "early_stopping_mode='min' needs early_stopping_metric="),
        (
            {"early_stopping_metric": "val_f1@5", "compute_metrics": dict},
            "MLflow does not accept the metric name 'val_f1@5'",
        ),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)},
            "optimizer has none of the model's parameters",
        ),
    ],
)
def test_the_error_about_an_invalid_value_names_the_argument(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"criterion": 3}, "criterion must be callable, got 3"),
        ({"prepare_batch": "x"}, "prepare_batch must be callable, got 'x'"),
        ({"train_loader": None}, "train_loader must be iterable, such as a DataLoader, got None"),
        ({"optimizer": "adam"}, "got a Linear and a str"),
        ({"scheduler": 0.1}, r"scheduler must have a method step\(\), got 0.1"),
    ],
)
def test_the_error_about_a_wrong_type_names_the_argument(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trainer(**asked)


def test_an_unknown_device_is_torchs_own_error() -> None:
    with pytest.raises(RuntimeError, match="device type"):
        trainer(device="gpu")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_a_precision_is_a_name_or_a_type(dtype: Any) -> None:
    trainer(amp_dtype=dtype)


@pytest.mark.parametrize("config", ["config.yaml", 7, [("a", 1)]])
def test_a_config_is_a_mapping(config: Any) -> None:
    with pytest.raises(TypeError, match="config must be a mapping such as a dict, got"):
        trainer(config=config)


def test_validation_needs_a_loader() -> None:
    with pytest.raises(ValueError, match="no val_loader"):
        trainer(val_loader=None).validate()


@pytest.mark.parametrize("absent", ["torch", "ignite"])
def test_the_error_about_a_missing_library_names_the_extra(absent: str) -> None:
    """Trainer imports without torch; its constructor says what to install."""
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
            assert '{absent}, which is not installed: pip install "pytorch-ignite>=' in str(error), error
            assert '"torch>=' in str(error) and "mlflow-sysmetrics" not in str(error), error
        else:
            raise AssertionError
    """
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], check=True)
