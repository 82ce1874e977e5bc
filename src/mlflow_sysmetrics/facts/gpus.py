"""The GPUs that are watched, from the first source that knows them, as tags.

The lists have one entry per device, in the order of the ordinals in ``gpu_<ordinal>_...``. `sys.gpu_uuid`
says which device that is on any host, `sys.gpu_index` what ``nvidia-smi`` calls it on this one: "2,0" says
that ``gpu_0`` is the GPU of index 2. A slice has the index of its GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.operating_systems import GpuSource
from mlflow_sysmetrics.facts.values import LONGEST_VALUE, Gpu, GpuReport, gigabytes, joined
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.environment import hides_every_gpu

_UNIFIED = "unified"
_UNKNOWN = "unknown"
_SHORT_UUID = len("GPU-8932f937")  # CUDA_VISIBLE_DEVICES and MLFLOW_SYSMETRICS_GPUS take it too


def find_gpus(host: Host, run: RunCommand, sources: Iterable[GpuSource]) -> GpuReport:
    """Returns what the first of `sources` that has GPUs reports, with the problems of those before it.

    No GPUs and no problems means that there certainly is none.
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
    """Yields the tags of the visible GPUs.

    Raises:
        Unavailable: after the last tag, if something could not be found out.
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
    elif set(sizes) != {_UNKNOWN}:
        yield "sys.gpu_memory_gb", joined(sizes, ",")
    drivers = list(dict.fromkeys(gpu.driver for gpu in gpus if gpu.driver))
    if drivers:
        yield "sys.gpu_driver", joined(drivers, ",")
    uuids = [gpu.uuid or _UNKNOWN for gpu in gpus]
    if set(uuids) != {_UNKNOWN}:
        yield "sys.gpu_uuid", joined(_fitting(uuids), ",")
    indices = [str(gpu.index) for gpu in gpus if gpu.index is not None]
    if indices:
        yield "sys.gpu_index", joined(indices, ",")


def counted_names(gpus: Sequence[Gpu]) -> str:
    """Returns the names with equal ones counted: "2 x NVIDIA H200", "NVIDIA A100, NVIDIA T4"."""
    counts = Counter(gpu.name for gpu in gpus)
    return joined((name if count == 1 else f"{count} x {name}" for name, count in counts.items()), ", ")


def _fitting(uuids: Sequence[str]) -> Sequence[str]:
    """Returns the beginnings of UUIDs where the whole of all of them has no room, but they still differ."""
    short = [uuid[:_SHORT_UUID] for uuid in uuids]
    if len(",".join(uuids)) <= LONGEST_VALUE or len(set(short)) < len(set(uuids)):
        return uuids
    return short


def _size(gpu: Gpu) -> str:
    if gpu.unified:
        return _UNIFIED
    # The list stays aligned with the GPUs, so an unknown size among known ones needs a word of its own.
    return _UNKNOWN if gpu.memory_bytes is None else gigabytes(gpu.memory_bytes)
