"""Fake NVIDIA devices that support everything of their generation, and helpers to read their collectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_gpu import UNSUPPORTED
from fake_nvml import FakeGpu, FakeNvml, Process
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.machine.host import Host

HOPPER, AMPERE, CARD, SLICE, OTHER_SLICE = "GPU-hopper", "GPU-ampere", "GPU-card", "MIG-one", "MIG-two"
GPM = {1: 50.0, 2: 40.0, 3: 30.0, 5: 20.0, 10: 10.0, 20: 1.0, 21: 2.0, 60: 3.0, 61: 4.0}


def hopper(uuid: str = HOPPER, **changes: Any) -> FakeGpu:
    """Returns a GPU with every counter; this process holds half of its memory."""
    answers: dict[str, Any] = {
        "name": "NVIDIA H100",
        "memory_bytes": 80_000_000_000,
        "memory_used_bytes": 40_000_000_000,
        "memory_reserved_bytes": 1_000_000_000,
        "utilization": 87,
        "memory_utilization": 41,
        "power_milliwatts": 350_000,
        "power_limit_milliwatts": 700_000,
        "energy_millijoules": 3_600_000,
        "temperature": 61,
        "processes": [Process(os.getpid(), 40_000_000_000)],
        "ecc_corrected": 0,
        "remapped_rows": 0,
        "reasons": 0,
        "sm_clock": 1980,
        "memory_clock": 2619,
        "fields": {74: 0, 75: 0, 77: 0, 82: 70},
        "gpm": GPM,
    }
    return FakeGpu(uuid=uuid, **answers | changes)


def ampere(uuid: str = AMPERE, **changes: Any) -> FakeGpu:
    """Returns a GPU with link counters, but without GPM, energy and throttling counters."""
    fields = {82: 60, 138: 1024, 139: 2048, 197: 2**33, 198: 2**34}
    return hopper(uuid, **{"gpm": None, "fields": fields, "energy_millijoules": UNSUPPORTED} | changes)


def sliced(**changes: Any) -> FakeGpu:
    """Returns a GPU divided into two MIG slices; this process runs on the first."""
    pieces = tuple(
        FakeGpu(
            "NVIDIA H100 MIG 1g.10gb",
            uuid,
            10_000_000_000,
            5_000_000_000,
            gpm=GPM,
            processes=[Process(os.getpid(), 4_000_000_000)],
        )
        for uuid in (SLICE, OTHER_SLICE)
    )
    return hopper(CARD, **{"slices": pieces} | changes)


def host(nvml: FakeNvml, gpus: str = "visible", environ: Mapping[str, str] | None = None) -> Host:
    """Returns a machine with nothing but GPUs."""
    return Host(root=Path("/nowhere"), environ=environ or {}, gpus=gpus, load_nvml=lambda: nvml)


def collector(
    nvml: FakeNvml, kind: type[Collector] = Nvidia, gpus: str = "visible", **environ: str
) -> Collector:
    """Returns a collector on a machine with nothing but GPUs."""
    return kind(host(nvml, gpus, environ))


def tick(one: Collector, now: float = 0) -> dict[str, float]:
    """Returns the values of one tick by their keys without "gpu_"."""
    return {sample.key.removeprefix("gpu_"): sample.value for sample in one.collect(now)}
