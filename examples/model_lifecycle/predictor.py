"""Serves the version in production, and switches to the next one as soon as it is promoted.

Usage: python predictor.py        (MLFLOW_TRACKING_URI names the server; Ctrl-C or SIGTERM stops it)
"""

from __future__ import annotations

import time
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_sysmetrics.training import find_version

NAME = "ships"
POLL_SECONDS = 0.5


class Served:
    """The current model, replaced only by one that is completely loaded."""

    def __init__(self) -> None:
        self.version: str | None = None
        self._model: Any = None

    def refresh(self) -> bool:
        """Loads the version in production if it changed; returns whether it did.

        It is found by the alias ``production``, or by the stage Production if there is no such alias.
        """
        try:
            found = find_version(NAME)
        except LookupError:  # nothing is in production: keep the current model
            return False
        if str(found.version) == self.version:
            return False
        # By number: the alias may have moved in the meantime.
        self._model = mlflow.pyfunc.load_model(f"models:/{NAME}/{found.version}")
        self.version = str(found.version)
        return True

    def predict(self, readings: np.ndarray) -> np.ndarray:
        """Returns which echoes are ships."""
        return np.asarray(self._model.predict(readings))


def run() -> None:
    """Serves until the program is stopped."""
    served = Served()
    print("predictor is waiting for a version in production", flush=True)
    while True:
        try:
            if served.refresh():
                rows = [len(served.predict(np.zeros((rows, 4)))) for rows in (1, 64)]
                print(f"version {served.version} answers {rows[0]} and {rows[1]} rows", flush=True)
        except MlflowException as error:  # the server is unreachable: keep the current model
            print(f"predictor keeps version {served.version}: {error}", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    run()
