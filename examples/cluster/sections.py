"""Prints which sections "System metrics" of a run has in MLflow's UI."""

from __future__ import annotations

import sys
import time

import mlflow

NODES_END_SECONDS = 3  # they hear of the end of a run within a second, and send what is left


def show(run_id: str) -> None:
    """Prints what stands before the last slash of the keys, by which the UI groups charts; no summaries."""
    time.sleep(NODES_END_SECONDS)
    keys = mlflow.MlflowClient().get_run(run_id).data.metrics
    sections = {key.rpartition("/")[0] for key in keys if key.startswith("system/")}
    print(*sorted(one for one in sections if not one.startswith("system/summary")), sep="\n")


if __name__ == "__main__":
    show(sys.argv[1])
