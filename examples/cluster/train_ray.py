"""Trains on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import os
import time

import mlflow
import ray
from ray.cluster_utils import Cluster
from sections import show

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
OTHER = {"MLFLOW_SYSMETRICS_HOST_ID": "another"}


@ray.remote(num_cpus=1)
def train(seconds: float) -> int:
    """Works for some seconds."""
    ends, steps = time.time() + seconds, 0
    while time.time() < ends:
        steps += 1
    return steps


def main() -> None:
    """Trains a model on each node."""
    seconds = float(os.environ.get("SECONDS_TO_TRAIN", "20"))
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE, env_vars=OTHER)
    ray.init(address=cluster.address)
    with mlflow.start_run(run_name="ray") as run:
        results = ray.get([train.options(scheduling_strategy="SPREAD").remote(seconds) for _ in range(2)])
        mlflow.log_metric("steps", sum(results))
    show(run.info.run_id)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
