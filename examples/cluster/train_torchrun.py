"""Trains with torchrun; rank 0 has the run."""

from __future__ import annotations

import os
import time

import mlflow
import torch
import torch.distributed as dist
from sections import show


def main() -> None:
    """Trains for some seconds."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    run = mlflow.start_run(run_name="torchrun") if rank == 0 else None
    ends = time.time() + float(os.environ.get("SECONDS_TO_TRAIN", "20"))
    while agreed(float(time.time() < ends)):
        torch.randn(400, 400) @ torch.randn(400, 400)
        time.sleep(0.1)
    dist.barrier()
    if run is not None:
        mlflow.end_run()
        show(run.info.run_id)
    dist.destroy_process_group()


def agreed(vote: float) -> float:
    """Returns the vote of rank 0, on every rank."""
    shared = torch.tensor([vote])
    dist.broadcast(shared, src=0)
    return shared.item()


if __name__ == "__main__":
    main()
