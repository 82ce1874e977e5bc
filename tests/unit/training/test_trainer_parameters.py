"""The parameters of a training are those of its program, under dotted names that MLflow accepts."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from installed import require

torch = pytest.importorskip("torch")
require("ignite")
import numpy as np
import yaml

from mlflow_sysmetrics.training.trainer import Trainer
from mlflow_sysmetrics.training.trainer.parameters import as_yaml, flattened, parameters_of

pytestmark = pytest.mark.heavy


class Size(enum.Enum):
    """A value that YAML does not have."""

    SMALL = 1


CONFIG = {
    "task": "criteria",
    "training": {"optimizer": {"lr": np.float64(1e-3), "betas": (0.9, 0.999)}, "amp": False},
    "layers": [{"size": 8}, {"size": 4}],
    "path": Path("/data"),
    "size": Size.SMALL,
    "seed": np.int64(7),
    "scale": torch.tensor(0.5),
    "nothing": None,
    "empty": {},
    3: "three",
}


def test_a_nested_configuration_becomes_dotted_names() -> None:
    assert flattened(CONFIG) == {
        "task": "criteria",
        "training.optimizer.lr": 0.001,
        "training.optimizer.betas": [0.9, 0.999],
        "training.amp": False,
        "layers.0.size": 8,
        "layers.1.size": 4,
        "path": "/data",
        "size": "Size.SMALL",
        "seed": 7,
        "scale": 0.5,
        "nothing": None,
        "empty": {},
        "3": "three",
    }


def test_the_file_of_a_configuration_can_be_read_back() -> None:
    read = yaml.safe_load(as_yaml(CONFIG))
    assert list(read) == [*list(CONFIG)[:-1], "3"]  # in the order of the program
    assert read["training"] == {"optimizer": {"lr": 0.001, "betas": [0.9, 0.999]}, "amp": False}


def test_a_secret_of_the_environment_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-the-environment")
    assert "t0ken" not in as_yaml({"tracking": {"token": "t0ken-of-the-environment"}})


def made(**arguments: Any) -> Trainer:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    data = torch.utils.data.TensorDataset(torch.zeros(20, 4), torch.zeros(20, dtype=torch.long))
    optimizer = torch.optim.AdamW(
        [{"params": model[0].bias}, {"params": model[1].parameters(), "lr": 0.1}], lr=np.float32(0.5)
    )
    given = {
        "model": model,
        "train_loader": torch.utils.data.DataLoader(data, batch_size=8),
        "val_loader": None,
        "optimizer": optimizer,
        "criterion": torch.nn.functional.cross_entropy,
        "device": "cpu",
        "scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, 0.5),
    }
    return Trainer(**{**given, **arguments})


def parameters(trainer: Trainer) -> dict[str, object]:
    return parameters_of(trainer._arguments, torch.device("cpu"))


def test_what_is_known_of_a_training() -> None:
    torch.manual_seed(11)
    found = parameters(made(num_epochs=3, patience=2, use_amp=True, early_stopping_metric="train_loss"))
    assert {key: found[key] for key in found if not key.startswith("training.optimizer.")} == {
        "training.num_epochs": 3,
        "training.batch_size": 8,
        "training.batches_per_epoch": 3,
        "training.train_samples": 20,
        "training.criterion": "cross_entropy",
        "training.scheduler": "LinearLR",
        "training.optimizer": "AdamW",
        "training.device": "cpu",
        "training.devices": 1,
        "training.seed": 11,
        "training.gradient_accumulation_steps": 1,
        "training.patience": 2,
        "training.early_stopping_metric": "train_loss",
        "training.use_amp": True,
        "training.amp_dtype": "float16",
        "model.class": "Sequential",
        "model.parameters": 23,
        "model.trainable_parameters": 11,
    }
    assert found["training.optimizer.lr"] == 0.5  # not what the scheduler has made of it
    assert found["training.optimizer.1.lr"] == pytest.approx(0.1)
    assert found["training.optimizer.betas"] == [0.9, 0.999]
    assert "training.optimizer.1.betas" not in found


def test_loaders_of_any_kind_and_names_of_models() -> None:
    trainer = made(train_loader=[(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))])
    trainer.model.config = SimpleNamespace(_name_or_path="roberta-base")
    found = parameters(trainer)
    assert "training.batch_size" not in found
    assert found["model.name"] == "roberta-base"
