"""Makes hosts from the machines in tests/hosts, at their first moment and one second later.

On pytest's path (`pythonpath` in pyproject.toml). tests/hosts/README.md describes the folders.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fake_nvml import FakeGpu, FakeNvml, Process
from mlflow_sysmetrics.collectors import Collector, load_classes, registry
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import linux
from mlflow_sysmetrics.facts.fact_list import FACTS, Sources
from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.samples import Metric

# Every collector, regardless of this machine.
LINUX = load_classes(registry.LINUX)
PORTABLE = load_classes(registry.PORTABLE)

HOSTS = sorted(path.parent for path in (Path(__file__).parent / "hosts").glob("*/README.md"))
# Facts that depend only on the files and the environment of a machine; the others query the running process.
_FACTS_FROM_FILES = frozenset({"memory", "cores", "container", "scheduler", "cloud"})

# GPUs of the revived machines by root: `advance` moves them too.
_GPUS: dict[Path, list[FakeGpu]] = {}

every_host = pytest.mark.parametrize("recorded", HOSTS, ids=lambda path: path.name)


def revive(recorded: Path, root: Path) -> Host:
    """Returns a recorded machine at its first moment, below `root`."""
    _place(recorded / "first", root)
    gpus = [_gpu(gpu) for file in recorded.glob("gpus.json") for gpu in json.loads(file.read_text())]
    _GPUS[root] = gpus
    missing = FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found")
    nvml = FakeNvml(*gpus, init_error=None if gpus else missing)
    job = _assignments(recorded / "job.txt")
    sizes = _sizes(recorded / "disk.txt")
    return Host(
        root=root,
        environ=_assignments(recorded / "environ.txt"),
        disk_usage=lambda path: _disk_usage(sizes, path),
        working_directory=lambda: job.get("working_directory", "/"),
        disks=tuple(filter(None, job.get("disks", "").split(","))),
        process_seconds=_no_clock,
        has_nvml=lambda: bool(gpus),
        load_nvml=lambda: nvml,
    )


def advance(recorded: Path, root: Path) -> None:
    """Moves a revived machine to its second moment."""
    _place(recorded / "second", root)
    for gpu in _GPUS[root]:
        for one in (gpu, *(gpu.slices or ())):
            vars(one).update(one.later)


@functools.cache
def files(moment: Path) -> Mapping[str, bytes]:
    """Returns the files of one moment, by their paths on the machine."""
    return {
        # Windows does not allow the colons in file names of /sys: they are written %3A here.
        file.relative_to(moment).as_posix().replace("%3A", ":"): file.read_bytes()
        for file in sorted(moment.rglob("*"))
        if file.is_file()
    }


def facts(host: Host) -> dict[str, str]:
    """Returns the tags that depend only on the files and the environment of a machine."""
    sources = Sources(host=host, system=linux, run=_no_command)
    tags = {}
    for fact in FACTS:
        if fact.name in _FACTS_FROM_FILES:
            tags.update(fact.find(sources))
    return tags


def build(collector: type[Collector], host: Host) -> Collector | Unavailable:
    """Returns the collector, or the reason why it is unavailable."""
    try:
        return collector(host)
    except Unavailable as reason:
        return reason


@functools.cache
def metric_of(key: str, collector: type[Collector]) -> Metric:
    """Returns the metric of a collector to which a key belongs."""
    (metric,) = (metric for metric in collector.metrics if re.fullmatch(_pattern(metric), key))
    return metric


def _pattern(metric: Metric) -> str:
    return metric.name.replace("{i}", r"\d+").replace("{name}", "[a-z0-9_]+")


def _place(moment: Path, root: Path) -> None:
    made = set()
    for path, content in files(moment).items():  # tens of thousands in a run of the tests, so without `Path`
        if os.name == "nt" and ":" in path:
            pytest.skip("this file system does not allow colons in file names")
        directory, _, name = f"{root}/{path}".rpartition("/")
        if directory not in made:
            os.makedirs(directory, exist_ok=True)
            made.add(directory)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")  # ext4 flushes a file that is truncated and rewritten
        with open(f"{directory}/{name}", "wb", buffering=0) as file:
            file.write(content)


def _assignments(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _lines(file))


def _lines(file: Path) -> Iterator[str]:
    if file.exists():
        yield from file.read_text().splitlines()


def _sizes(file: Path) -> dict[str, DiskUsage]:
    """Returns the size of the filesystem at each path; a line without a path applies to all of them."""
    sizes = {}
    for line in _lines(file):
        *path, total, used, free = line.split()
        sizes[path[0] if path else "/"] = DiskUsage(int(total), int(used), int(free))
    return sizes


def _disk_usage(sizes: Mapping[str, DiskUsage], path: str) -> DiskUsage:
    for directory in (PurePosixPath(path), *PurePosixPath(path).parents):
        if str(directory) in sizes:
            return sizes[str(directory)]
    raise FileNotFoundError(2, "No such file or directory", path)


def _no_clock(pid: int) -> float:
    """Raises the error for a process that does not run here, so that its stat is read."""
    raise ProcessLookupError(3, "No such process", str(pid))


def _no_command(command: object) -> str:
    raise Unavailable(f"a recorded machine runs no {command}")


def _gpu(described: Mapping[str, Any]) -> FakeGpu:
    """Returns a device of gpus.json."""
    answers = {key: _answer(key, value) for key, value in described.items()}
    if "slices" in described:
        answers["slices"] = tuple(_gpu(piece) for piece in described["slices"])
    answers["later"] = {key: _answer(key, value) for key, value in described.get("later", {}).items()}
    return FakeGpu(**answers)


def _answer(key: str, value: Any) -> Any:
    if value == "Not Supported":
        return FakeNvml.NVMLError_NotSupported(value)
    if key in ("fields", "gpm"):  # keyed by NVML's numbers, which are strings in JSON
        return {int(number): each for number, each in value.items()}
    if key == "processes":  # pairs of pid (or "self") and bytes
        return [Process(os.getpid() if pid == "self" else pid, held) for pid, held in value]
    return value
