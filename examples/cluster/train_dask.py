"""Trains on a Dask cluster of three worker processes."""

from __future__ import annotations

import os
import time

import mlflow
from distributed import Client, LocalCluster
from sections import show

WORKERS = {"MLFLOW_SYSMETRICS_HOST_ID": "another", "MLFLOW_SYSTEM_METRICS_NODE_ID": "gpu-a01"}


def train(seconds: float) -> int:
    """Works for some seconds."""
    ends, steps = time.time() + seconds, 0
    while time.time() < ends:
        steps += 1
    return steps


def main() -> None:
    """Trains three models at once."""
    seconds = float(os.environ.get("SECONDS_TO_TRAIN", "20"))
    cluster = LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, env=WORKERS)
    with cluster, Client(cluster) as client:
        with mlflow.start_run(run_name="dask") as run:
            results = client.gather(client.map(train, [seconds] * 3, pure=False))
            mlflow.log_metric("steps", sum(results))
        show(run.info.run_id)


if __name__ == "__main__":
    main()
