"""Logs simulated runs, one of each kind that a report tells apart, to a tracking server.

    python scripts/simulated_runs.py [--tracking-uri sqlite:///runs.db] [--hours 2] [--experiment simulated]

The values are made up; the keys, the times and the tags are those of real runs.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator

from mlflow import MlflowClient
from mlflow.entities import Metric

SECONDS = 10  # between two points
BATCH = 1000  # metrics per request
TAGS = {
    "sys.hostname": "gpu-node-7",
    "sys.cpu": "AMD EPYC 9654 96-Core Processor",
    "sys.cpu_cores": "192",
    "sys.cpu_cores_effective": "16",
    "sys.memory_gb": "1520",
    "sys.memory_limit_gb": "128",
    "sys.gpu": "NVIDIA H100 80GB HBM3",
    "sys.gpu_count": "1",
    "sys.gpu_memory_gb": "85",
    "sys.scheduler": "slurm",
    "sys.os": "Ubuntu 24.04",
    "sys.python": "CPython 3.12.7",
    "mlflow.source.name": "train.py",
}
Tick = Callable[[random.Random, float, float], dict[str, float]]


def host(cpu: float, memory: float, **more: float) -> dict[str, float]:
    """Returns the readings of the host."""
    return {
        "cpu_utilization_percentage": cpu,
        "process_cpu_percentage": cpu * 16,
        "system_memory_usage_percentage": memory,
        "process_memory_rss_megabytes": memory * 1100,
        "cpu_pressure_percentage": max(cpu - 60, 0) * 2,
        "io_pressure_percentage": 1.0,
        **more,
    }


def gpu(
    used: float, *, own: bool = True, filled: float = 61.0, number: int = 0, **more: float
) -> dict[str, float]:
    """Returns the readings of one GPU."""
    found = {
        "utilization_percentage": used,
        "memory_usage_percentage": filled,
        "memory_usage_megabytes": filled * 850,
        "power_usage_watts": 90 + used * 5.6,
        "temperature_celsius": 34 + used * 0.32,
        "throttled_percentage": 0.0,
        **({"process_memory_megabytes": filled * 850 - 400} if own else {}),
        **more,
    }
    return {f"gpu_{number}_{name}": value for name, value in found.items()}


def healthy(draw: random.Random, seconds: float, _share: float) -> dict[str, float]:
    """A training with an evaluation every twenty minutes."""
    low = seconds % 1200 < 60
    used = draw.gauss(35, 5) if low else min(draw.gauss(94, 2), 100)
    return {**host(draw.gauss(38, 3), 42), **gpu(used)}


def input_bound(draw: random.Random, seconds: float, _share: float) -> dict[str, float]:
    """Augmentation on too few cores."""
    used = max(draw.gauss(32, 9), 0)
    return {**host(min(draw.gauss(97, 1), 100), 47 + 2 * math.sin(seconds / 600)), **gpu(used, filled=38)}


def starved(draw: random.Random, seconds: float, _share: float) -> dict[str, float]:
    """One slow worker of the data loader."""
    return {**host(draw.gauss(9, 1), 30), **gpu(0 if seconds % 60 < 30 else draw.gauss(88, 3))}


def unused(draw: random.Random, _seconds: float, _share: float) -> dict[str, float]:
    """A program that runs on the CPU."""
    return {**host(draw.gauss(55, 3), 20), **gpu(0, own=False, filled=0.6)}


def throttled(draw: random.Random, _seconds: float, _share: float) -> dict[str, float]:
    """A CPU quota that is too small."""
    return {**host(99, 33, cpu_throttled_percentage=draw.gauss(74, 4)), **gpu(max(draw.gauss(40, 8), 0))}


def near_out_of_memory(draw: random.Random, seconds: float, share: float) -> dict[str, float]:
    """A leak."""
    return {**healthy(draw, seconds, share), "system_memory_usage_percentage": 40 + 57.6 * share}


def straggler(draw: random.Random, _seconds: float, _share: float) -> dict[str, float]:
    """Four GPUs, one of which gets less to do."""
    found = host(draw.gauss(40, 3), 45)
    for number in range(4):
        found |= gpu(draw.gauss(68 if number == 2 else 92, 2), number=number)
    return found


KINDS: dict[str, Tick] = {
    "bert-large": healthy,
    "resnet50 augmented": input_bound,
    "segmentation": starved,
    "forgot .cuda()": unused,
    "tabular, 4 CPUs": throttled,
    "graph network": near_out_of_memory,
    "ddp 4 GPUs": straggler,
}


def points(tick: Tick, began: int, seconds: int, seed: int) -> Iterator[Metric]:
    """Yields the points of a run that began at a time in milliseconds since 1970."""
    draw = random.Random(seed)  # noqa: S311 - a simulation
    energy = 0.0
    for at in range(0, seconds, SECONDS):
        warm = at > 90
        values = tick(draw, at, at / seconds)
        if not warm:
            values |= {
                name: 0.0 for name in values if name.endswith("_utilization_percentage") and "gpu" in name
            }
        energy += sum(value for name, value in values.items() if name.endswith("_watts")) * SECONDS / 3600
        values["gpu_0_energy_watt_hours"] = energy
        for name, value in values.items():
            yield Metric(f"system/{name}", max(value, 0.0), began + at * 1000, at)


def log(client: MlflowClient, experiment: str, name: str, *, tick: Tick, hours: float, user: str) -> str:
    """Logs a run and returns its id."""
    seconds = int(hours * 3600)
    began = int(time.time() * 1000) - seconds * 1000
    gpus = "4" if tick is straggler else "1"
    tags = {**TAGS, "sys.gpu_count": gpus, "mlflow.user": user}
    run = client.create_run(experiment, start_time=began, run_name=name, tags=tags)
    waiting = list(points(tick, began, seconds, len(name)))
    for start in range(0, len(waiting), BATCH):
        client.log_batch(run.info.run_id, metrics=waiting[start : start + BATCH])
    client.set_terminated(run.info.run_id, end_time=began + seconds * 1000)
    return str(run.info.run_id)


def main() -> None:
    """Logs the runs and prints their ids."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tracking-uri", default="sqlite:///runs.db", help="default: %(default)s")
    parser.add_argument("--experiment", default="simulated", help="default: %(default)s")
    parser.add_argument("--hours", type=float, default=2.0, help="length of a run (default: 2)")
    options = parser.parse_args()
    client = MlflowClient(options.tracking_uri)
    experiment = client.create_experiment(options.experiment)
    for index, (name, tick) in enumerate(KINDS.items()):
        user = ("ada", "grace", "edsger")[index % 3]
        hours = options.hours * (1 + index % 3 / 2)
        run_id = log(client, experiment, name, tick=tick, hours=hours, user=user)
        print(run_id, name)


if __name__ == "__main__":
    main()
