"""GPU memory as torch counts it: memory in tensors, and memory that its allocator holds.

Source:  torch.cuda.memory_stats_as_nested_dict, allocated_bytes and reserved_bytes, if the program has
         imported torch and started CUDA; this collector does neither. ROCm builds have the same functions.
         https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management
Units:   megabytes (1e6 bytes).
Cost:    without torch one lookup in sys.modules; else one call of torch per device that it uses, and every
         5 s one for each other device. torch.cuda.memory_allocated and memory_reserved would each flatten and
         sort all 120 statistics for one number.
Absent:  without torch, before the program uses CUDA, on devices on which torch holds nothing; with an
         allocator other than torch's own, which counts differently or not at all.
Check:   python -c "import torch; torch.ones(9).cuda(); print(torch.cuda.memory_summary())"
Unconfirmed: torch without CUDA and a stand-in for torch with it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, Collector
from mlflow_sysmetrics.collectors.rhythm import Pause
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.selection import follows_environment
from mlflow_sysmetrics.samples import Family, Metric, Sample

# A program rarely starts to use another device, and most training processes use one of those they see.
_LOOK_SECONDS = 5.0
_OWN_ALLOCATOR = "native"


def parse_stats(stats: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns the allocated and reserved bytes of one device; None if torch does not report them.

    Args:
        stats: the result of torch.cuda.memory_stats_as_nested_dict: {} while CUDA is not started.
    """
    try:
        allocated = int(stats["allocated_bytes"]["all"]["current"])
        reserved = int(stats["reserved_bytes"]["all"]["current"])
    except (KeyError, TypeError):
        return None
    return (allocated, reserved) if allocated >= 0 <= reserved else None


class TorchAllocator(Collector):
    """Memory that torch's caching allocator has in tensors and in reserve, per device."""

    family: ClassVar[Family] = Family.GPU
    metrics: ClassVar[tuple[Metric, ...]] = (catalogue.GPU_TORCH_ALLOCATED, catalogue.GPU_TORCH_RESERVED)

    def __init__(self, host: Host) -> None:
        self._host = host
        self._look = Pause(_LOOK_SECONDS, read=False)
        self._keys: dict[int, tuple[str, ...]] = {}  # of the devices in use, by torch's index

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the memory of each device that torch uses; nothing if it does not run on GPUs."""
        # Not `torch.cuda`: accessing an attribute of a lazily loaded module would load it.
        cuda: Any = sys.modules.get("torch.cuda")
        self.cumulative = cuda is None or not _is_initialized(cuda)
        if self.cumulative:  # nothing to read; the next look is when a point is due
            return
        if self._look.renew_if_over(now):
            self._find_devices(cuda)
        for index, keys in self._keys.items():
            memory = _read(cuda, index)
            if memory is not None and memory[1] > 0:
                for key, metric, size in zip(keys, self.metrics, memory, strict=True):
                    yield Sample(key, metric.kind, size / MEGABYTE)

    def _find_devices(self, cuda: Any) -> None:
        """Finds the devices that torch uses, and their ordinals."""
        self._keys.clear()
        allocator = _allocator(cuda)
        if allocator != _OWN_ALLOCATOR:
            self.gaps = (f"torch's memory is unknown: its allocator is {allocator}",)
            return
        count = _device_count(cuda)
        if count is None:
            self.gaps = ("torch does not report its number of devices",)
            return
        gaps, taken = [], set()
        for index in range(count):
            memory = _read(cuda, index)
            if memory is None:
                gaps.append(f"torch does not report its memory on cuda:{index}")
            elif memory[1] > 0:
                ordinal = self._ordinal(_uuid(cuda, index), index, count)
                # Parts of one GPU may have the same UUID: no two of them get one key.
                if ordinal is None or ordinal in taken:
                    gaps.append(f"torch's cuda:{index} is not among the watched GPUs")
                else:
                    taken.add(ordinal)
                    self._keys[index] = tuple(metric.key(i=ordinal) for metric in self.metrics)
        self.gaps = tuple(gaps)

    def _ordinal(self, uuid: str | None, index: int, count: int) -> int | None:
        """Returns the ordinal of one of torch's devices; None if it is not watched."""
        ordinals = self._host.gpu_ordinals
        known = None if uuid is None else ordinals.of(uuid)
        host = self._host
        if not follows_environment(host.wanted_amd_gpus if _is_rocm() else host.wanted_gpus):
            return known
        # CUDA's device k is the visible device k. For a MIG slice it may report the UUID of the whole GPU.
        ordinal = ordinals.first("amd" if _is_rocm() else "nvidia", count) + index
        shown = ordinals.uuid(ordinal)
        if uuid is None or shown is None or shown.startswith("MIG-"):
            return ordinal if known is None else known
        return ordinal if shown.lower() == f"gpu-{uuid}".lower() else known


def _is_initialized(cuda: Any) -> bool:
    try:
        return (
            cuda.is_initialized() is True
        )  # a mock of torch, as in documentation builds, does not return a bool
    except AttributeError:  # another thread is importing torch
        return False


def _device_count(cuda: Any) -> int | None:
    try:
        return int(cuda.device_count())
    except RuntimeError:  # an error of CUDA's
        return None


def _is_rocm() -> bool:
    return getattr(sys.modules.get("torch.version"), "hip", None) is not None


def _allocator(cuda: Any) -> str:
    try:
        return str(cuda.get_allocator_backend())
    except AttributeError:  # torch before 2.0 has only its own
        return _OWN_ALLOCATOR


def _read(cuda: Any, index: int) -> tuple[int, int] | None:
    try:
        return parse_stats(cuda.memory_stats_as_nested_dict(index))
    except (AttributeError, RuntimeError):  # torch before 1.4; an error of CUDA's
        return None


def _uuid(cuda: Any, index: int) -> str | None:
    try:
        uuid = str(cuda.get_device_properties(index).uuid)
    except (AttributeError, AssertionError, RuntimeError):  # torch before 2.4; an error of CUDA's
        return None
    return parse_rocm_uuid(uuid) if _is_rocm() else uuid


def parse_rocm_uuid(text: str) -> str | None:
    """Returns the UUID of an AMD GPU, as its driver writes it; None for a GPU without one ("XX").

    Args:
        text: torch's representation of it: ROCm fills CUDA's sixteen bytes with sixteen letters
            (https://github.com/pytorch/ao/pull/2853), each of which torch writes in hexadecimal.
    """
    try:
        letters = bytes.fromhex(text.replace("-", "")).decode("ascii")
        return f"{int(letters, 16):016x}"
    except ValueError:
        return None
