"""Which GPUs are watched: what the program sees, by the rules of each vendor, or what the user asks for."""

from __future__ import annotations

from mlflow_sysmetrics.machine.visible_gpus.amd import select_amd
from mlflow_sysmetrics.machine.visible_gpus.hidden import hides_every_gpu
from mlflow_sysmetrics.machine.visible_gpus.intel import select_intel
from mlflow_sysmetrics.machine.visible_gpus.nvidia import hides_nvidia_gpus, select_gpus
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, Selection, SliceId

__all__ = [
    "Chosen",
    "GpuId",
    "Selection",
    "SliceId",
    "hides_every_gpu",
    "hides_nvidia_gpus",
    "select_amd",
    "select_gpus",
    "select_intel",
]
