"""The watched GPUs as tags, from the first source that has any; a source is imported only if it may exist.

The lists have one entry per device, in the order of the ordinals in ``gpu_<ordinal>_...``. `sys.gpu_uuid`
identifies the device on any host, `sys.gpu_index` is its index in ``nvidia-smi`` on this one: "2,0" means
that ``gpu_0`` is the GPU with index 2. A slice has the index of its GPU. A GPU that cannot be read, or only
in part, keeps its place with "unknown".
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TypeAlias, cast

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.values import LONGEST_VALUE, UNKNOWN, Gpu, GpuReport, gigabytes, joined
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_every_gpu

GpuSource: TypeAlias = Callable[[Host, RunCommand], GpuReport]
"""Reports GPUs: an empty report if the source is not installed; raises `Unavailable` if it fails."""


class LazyGpuSource:
    """A `GpuSource` in a separate module.

    Attributes:
        module: name of the module in this package; its function `gpus` is the source.
        may_exist: returns False if the host certainly does not have the source.
    """

    __slots__ = ("may_exist", "module")

    def __init__(self, module: str, may_exist: Callable[[Host], bool]) -> None:
        self.module = module
        self.may_exist = may_exist

    def load(self) -> GpuSource:
        """Imports the module and returns its source.

        For the thread that starts the search, not for the search itself: a process that forks while another
        thread imports a module leaves that module locked in the child.
        """
        return cast("GpuSource", import_module(f"mlflow_sysmetrics.facts.{self.module}").gpus)

    def __call__(self, host: Host, run: RunCommand) -> GpuReport:
        """Returns the GPUs that the source reports.

        Raises:
            Unavailable: the source is there but does not work.
        """
        return self.load()(host, run) if self.may_exist(host) else GpuReport()


def _may_have_nvidia_smi(host: Host) -> bool:
    return (
        shutil.which("nvidia-smi", path=host.environ.get("PATH")) is not None
        or (host.root / "dev/nvidiactl").exists()
    )


def _has_graphics_card(host: Host) -> bool:
    return any((host.root / "sys/class/drm").glob("card*"))


NVML = LazyGpuSource("nvml_gpus", lambda host: host.may_have_nvml())
NVIDIA_SMI = LazyGpuSource("nvidia_smi", _may_have_nvidia_smi)
DRM = LazyGpuSource("drm_gpus", _has_graphics_card)


_UNIFIED = "unified"
_SHORT_UUID = len("GPU-8932f937")  # CUDA_VISIBLE_DEVICES and MLFLOW_SYSMETRICS_GPUS accept it too


def find_gpus(host: Host, run: RunCommand, sources: Iterable[GpuSource]) -> GpuReport:
    """Returns the report of the first of `sources` that has GPUs, with the problems of the sources before it.

    A report without GPUs and without problems means that there is certainly no GPU.
    """
    if hides_every_gpu(host.environ, host.gpus):
        return GpuReport(conclusive=True)
    problems: list[str] = []
    for source in sources:
        try:
            report = source(host, run)
        except Unavailable as reason:
            problems.append(str(reason))
            continue
        problems += report.problems
        if report.gpus or report.conclusive:
            return GpuReport(gpus=report.gpus, cuda=report.cuda, problems=tuple(problems), conclusive=True)
    return GpuReport(problems=tuple(problems))


def gpu_tags(report: GpuReport) -> Iterator[tuple[str, str]]:
    """Yields the tags of the watched GPUs.

    Raises:
        Unavailable: after the last tag, if something could not be determined.
    """
    if report.gpus:
        yield from _tags_of(report.gpus)
    elif not report.problems:
        yield "sys.gpu", "None"
        yield "sys.gpu_count", "0"
    if report.cuda is not None:
        yield "sys.gpu_cuda", report.cuda
    if report.problems:
        raise Unavailable(", ".join(report.problems))


def _tags_of(gpus: Sequence[Gpu]) -> Iterator[tuple[str, str]]:
    yield "sys.gpu", counted_names(gpus)
    yield "sys.gpu_count", str(len(gpus))
    sizes = [_size(gpu) for gpu in gpus]
    if set(sizes) == {_UNIFIED}:
        yield "sys.gpu_memory_gb", _UNIFIED
    elif set(sizes) != {UNKNOWN}:
        yield "sys.gpu_memory_gb", joined(sizes, ",")
    drivers = list(dict.fromkeys(gpu.driver for gpu in gpus if gpu.driver))
    if drivers:
        yield "sys.gpu_driver", joined(drivers, ",")
    uuids = [gpu.uuid or UNKNOWN for gpu in gpus]
    if set(uuids) != {UNKNOWN}:
        yield "sys.gpu_uuid", joined(_fitting(uuids), ",")
    indices = [UNKNOWN if gpu.index is None else str(gpu.index) for gpu in gpus]
    if set(indices) != {UNKNOWN}:
        yield "sys.gpu_index", joined(indices, ",")


def counted_names(gpus: Sequence[Gpu]) -> str:
    """Returns the names, with a count for repeated ones: "2 x NVIDIA H200", "NVIDIA A100, NVIDIA T4"."""
    counts = Counter(gpu.name for gpu in gpus)
    return joined((name if count == 1 else f"{count} x {name}" for name, count in counts.items()), ", ")


def _fitting(uuids: Sequence[str]) -> Sequence[str]:
    """Returns prefixes of the UUIDs if the full ones do not fit and the prefixes are still distinct."""
    short = [uuid[:_SHORT_UUID] for uuid in uuids]
    if len(",".join(uuids)) <= LONGEST_VALUE or len(set(short)) < len(set(uuids)):
        return uuids
    return short


def _size(gpu: Gpu) -> str:
    if gpu.unified:
        return _UNIFIED
    # The list stays aligned with the GPUs, so an unknown size among known ones needs a placeholder.
    return UNKNOWN if gpu.memory_bytes is None else gigabytes(gpu.memory_bytes)
