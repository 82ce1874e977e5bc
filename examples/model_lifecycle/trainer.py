"""Trains a model and registers it as a version that is not served yet.

Usage: python trainer.py ROWS        (MLFLOW_TRACKING_URI names the server)
"""

from __future__ import annotations

import sys

import mlflow
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from mlflow_sysmetrics import register_model

NAME = "ships"


def radar_echoes(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns four readings per echo, and whether the echo was a ship."""
    readings = np.random.default_rng(seed).normal(size=(rows, 4))
    return readings, (readings[:, 0] * readings[:, 1] + readings[:, 2] > 0).astype(int)


def train(rows: int) -> None:
    """Trains on this many rows, logs the accuracy, and registers the model."""
    readings, ships = radar_echoes(rows, seed=1)
    unseen, truth = radar_echoes(1000, seed=2)
    with mlflow.start_run(run_name=f"{rows} rows"):
        model = RandomForestClassifier(20, random_state=0).fit(readings, ships)
        accuracy = float((model.predict(unseen) == truth).mean())
        mlflow.log_metric("accuracy", accuracy)
        version = register_model(
            model,
            NAME,
            readings[:1],
            tags={"rows": rows},
            description=f"Tells ships from waves; trained on {rows} rows.",
            # Listed here because inferring them takes MLflow some seconds.
            pip_requirements=["scikit-learn", "numpy"],
        )
    print(f"version {version.version}: accuracy {accuracy:.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    train(int(sys.argv[1]))
