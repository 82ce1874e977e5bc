"""A submitted training, which does not start unless it can be tracked."""

from __future__ import annotations

import os

import mlflow

from mlflow_sysmetrics import tracked_run


def train() -> None:
    """Stands for hours of work."""
    for step in range(3):
        print(f"training step {step}", flush=True)
        mlflow.log_metric("loss", 1 / (step + 1), step=step)


if __name__ == "__main__":
    # Two attempts, one second apart, so that the example fails soon. A real job omits both arguments, to wait
    # out the cold start of a server: five attempts, 10 to 30 s apart.
    with tracked_run("submitted-job", status_path=os.environ["JOB_DIRECTORY"], max_retries=2, backoff=(1,)):
        train()
