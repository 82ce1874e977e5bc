"""Serves the version in production, and the next one as soon as there is one.

Usage: python predictor.py        (MLFLOW_TRACKING_URI names the server; Ctrl-C or SIGTERM ends it)
"""

from __future__ import annotations

import time
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_sysmetrics.training.registry import find_version

NAME = "ships"
POLL_SECONDS = 0.5


class Served:
    """The model that answers, replaced only by one that is wholly loaded."""

    def __init__(self) -> None:
        self.version: str | None = None
        self._model: Any = None

    def refresh(self) -> bool:
        """Loads the version in production if it is another one; returns whether it was.

        It is found by the alias ``production``, and by the stage Production where that has no alias.
        """
        try:
            found = find_version(NAME)
        except LookupError:  # nothing is in production: what answers now goes on
            return False
        if str(found.version) == self.version:
            return False
        # By its number: the alias may have moved on since.
        self._model = mlflow.pyfunc.load_model(f"models:/{NAME}/{found.version}")
        self.version = str(found.version)
        return True

    def predict(self, readings: np.ndarray) -> np.ndarray:
        """Returns which echoes are ships."""
        return np.asarray(self._model.predict(readings))


def run() -> None:
    """Answers, for as long as it is let."""
    served = Served()
    print("predictor is waiting for a version in production", flush=True)
    while True:
        try:
            if served.refresh():
                rows = [len(served.predict(np.zeros((rows, 4)))) for rows in (1, 64)]
                print(f"version {served.version} answers {rows[0]} and {rows[1]} rows", flush=True)
        except MlflowException as error:  # the server is away: the model in memory goes on answering
            print(f"predictor keeps version {served.version}: {error}", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    run()
