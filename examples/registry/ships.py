"""Trains a small network, puts it into production in the registry, and loads it back as a service would.

Usage: python ships.py TRACKING_URI
"""

from __future__ import annotations

import sys

import mlflow
import torch
from torch import nn

from mlflow_sysmetrics.training.registry import load_model, promote, register_model

NAME = "ships"


def radar_echoes(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns four readings of each echo, and whether it was a ship."""
    readings = torch.randn(rows, 4)
    return readings, (readings[:, 0] * readings[:, 1] + readings[:, 2] > 0).long()


def train(model: nn.Module, steps: int) -> float:
    """Trains a model and returns its accuracy on what it has not seen."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        readings, ships = radar_echoes(256)
        loss = nn.functional.cross_entropy(model.train()(readings), ships)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            mlflow.log_metric("loss", loss.item(), step=step)
    readings, ships = radar_echoes(2000)
    with torch.no_grad():
        return float((model.eval()(readings).argmax(1) == ships).float().mean())


def train_and_register(steps: int) -> None:
    """Trains a network in a run of its own and puts it into production."""
    model = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    with mlflow.start_run(run_name=f"{steps} steps"):
        accuracy = train(model, steps)
        mlflow.log_metric("accuracy", accuracy)
        sample, _ = radar_echoes(1)  # one row: the version serves any number
        version = register_model(
            model,
            NAME,
            sample,
            stage="Production",
            tags={"accuracy": f"{accuracy:.3f}"},
            description=f"Tells ships from waves; trained for {steps} steps.",
            # Listed here, so that MLflow need not find out: it would load the model in a process of its own.
            pip_requirements=["torch", "numpy"],
        )
    print(f"registered version {version.version} with accuracy {accuracy:.2f}")


def serve() -> None:
    """Loads the version in production and has it answer one row and a batch."""
    for wanted in ("production", "Production"):  # the alias; or the stage, which has the alias go first
        model = load_model(NAME, wanted)
        for rows in (1, 64):
            readings, _ = radar_echoes(rows)
            print(f"{wanted}: {len(model.predict(readings.numpy()))} of {rows} rows answered")


def show_stages() -> None:
    """Prints what the registry says of each version."""
    for version in sorted(
        mlflow.MlflowClient().search_model_versions(f"name='{NAME}'"), key=lambda one: int(one.version)
    ):
        print(f"version {version.version}: {version.current_stage}, accuracy {version.tags['accuracy']}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(0)
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment(NAME)
    train_and_register(steps=20)
    train_and_register(steps=400)
    serve()
    show_stages()
    promote(NAME, 1, "Production")  # a step back is the same call
    show_stages()
