"""Trains a small network, promotes it to production in the registry, and loads it as a service would.

Usage: python ships.py TRACKING_URI
"""

from __future__ import annotations

import sys

import mlflow
import torch
from torch import nn

from mlflow_sysmetrics import promote, register_model
from mlflow_sysmetrics.training import load_model

NAME = "ships"


def radar_echoes(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns four readings per echo, and whether the echo was a ship."""
    readings = torch.randn(rows, 4)
    return readings, (readings[:, 0] * readings[:, 1] + readings[:, 2] > 0).long()


def train(model: nn.Module, steps: int) -> float:
    """Trains a model and returns its accuracy on unseen data."""
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
    """Trains a network in its own run and promotes it to production."""
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
            # Listed here because MLflow would load the model in another process to infer them.
            pip_requirements=["torch", "numpy"],
        )
    print(f"registered version {version.version} with accuracy {accuracy:.2f}")


def serve() -> None:
    """Loads the version in production and predicts one row and a batch."""
    for wanted in ("production", "Production"):  # the alias; and the stage, whose alias takes precedence
        model = load_model(NAME, wanted)
        for rows in (1, 64):
            readings, _ = radar_echoes(rows)
            print(f"{wanted}: {len(model.predict(readings.numpy()))} of {rows} rows answered")


def show_stages() -> None:
    """Prints the stage of each version in the registry."""
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
    promote(NAME, 1, "Production")  # rolling back is the same call
    show_stages()
