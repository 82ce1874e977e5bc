"""All collectors on all recorded machines: what they say, and what every collector promises."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeNvml
from mlflow_sysmetrics.collectors import LINUX, PORTABLE, Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import DiskUsage, Host
from mlflow_sysmetrics.samples import Metric, Sample

HOSTS = sorted(path for path in (Path(__file__).parents[2] / "hosts").iterdir() if path.is_dir())
# A new unit needs a line here: its name in `Metric.unit`, and how keys of that unit end.
UNITS = {"%": "_percentage", "MB": "_megabytes", "W": "_watts"}

every_host = pytest.mark.parametrize("recorded", HOSTS, ids=lambda path: path.name)
every_collector = pytest.mark.parametrize("collector", LINUX, ids=lambda collector: collector.__name__)


def revive(recorded: Path, root: Path) -> Host:
    """Returns a recorded machine at its first moment, below `root`."""
    if (recorded / "first").is_dir():
        shutil.copytree(recorded / "first", root, dirs_exist_ok=True)
    disk = DiskUsage(*(int(number) for number in (recorded / "disk.txt").read_text().split()))
    environ = dict(
        line.split("=", 1) for file in recorded.glob("environ.txt") for line in file.read_text().splitlines()
    )
    gpus = [
        FakeGpu(**{key: answer(value) for key, value in gpu.items()})
        for file in recorded.glob("gpus.json")
        for gpu in json.loads(file.read_text())
    ]
    missing = FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found")
    nvml = FakeNvml(*gpus, init_error=None if gpus else missing)
    return Host(root=root, environ=environ, disk_usage=lambda _: disk, load_nvml=lambda: nvml)


def answer(value: object) -> object:
    return FakeNvml.NVMLError_NotSupported(value) if value == "Not Supported" else value


def advance(recorded: Path, root: Path) -> None:
    """Moves a revived machine to its second moment."""
    if (recorded / "second").is_dir():
        shutil.copytree(recorded / "second", root, dirs_exist_ok=True)


def unit(key: str, collector: type[Collector]) -> str:
    return next(metric.unit for metric in collector.metrics if re.fullmatch(pattern(metric), key))


def pattern(metric: Metric) -> str:
    return metric.name.replace("{i}", r"\d+")


def build(collector: type[Collector], host: Host) -> Collector | Unavailable:
    """Returns the collector, or why there is none."""
    try:
        return collector(host)
    except Unavailable as reason:
        return reason


def describe(recorded: Path, root: Path) -> str:
    """Returns what the collectors say of a machine at both moments, as text."""
    host = revive(recorded, root)
    lines = []
    built = [(collector, build(collector, host)) for collector in LINUX]
    for collector, one in built:
        if isinstance(one, Unavailable):
            lines.append(f"{collector.__name__}: {str(one).replace(str(root), '')}")
    for second in (0, 1):
        if second:
            advance(recorded, root)
        lines.append(f"second {second}")
        for collector, one in built:
            lines += (
                []
                if isinstance(one, Unavailable)
                else [
                    f"  {sample.key} {sample.value:.3f} {unit(sample.key, collector)}"
                    for sample in one.collect(float(second))
                ]
            )
    return "\n".join(lines) + "\n"


@every_host
def test_golden(recorded: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = describe(recorded, tmp_path / "root")
    expected = recorded / "expected.txt"
    if request.config.getoption("--bless"):
        expected.write_text(found)
    assert found == expected.read_text(), "if this is meant: pytest --bless tests/unit/collectors"


@every_host
def test_every_machine_says_how_it_was_recorded(recorded: Path) -> None:
    assert re.search("Recorded|Constructed", (recorded / "README.md").read_text())


@every_host
@every_collector
def test_samples_are_finite_legal_and_unique(
    recorded: Path, collector: type[Collector], tmp_path: Path
) -> None:
    host = revive(recorded, tmp_path / "root")
    one = build(collector, host)
    if isinstance(one, Unavailable):
        assert str(one)
        return
    for second in (0, 1):
        samples = list(one.collect(float(second)))
        assert all(math.isfinite(sample.value) for sample in samples)
        assert len({sample.key for sample in samples}) == len(samples)
        for sample in samples:
            assert_described(sample, collector)
        advance(recorded, tmp_path / "root")


def assert_described(sample: Sample, collector: type[Collector]) -> None:
    (metric,) = (metric for metric in collector.metrics if re.fullmatch(pattern(metric), sample.key))
    assert sample.kind is metric.kind
    assert metric.family is collector.family
    assert metric.unit in UNITS, f"add {metric.unit!r} to UNITS in {__file__}"
    assert metric.name.endswith(UNITS[metric.unit])
    assert re.fullmatch(r"[a-z0-9_]+", sample.key)


@pytest.mark.parametrize(
    "collector", [one for one in LINUX if one.__name__ != "Disk"], ids=lambda one: one.__name__
)
def test_an_empty_machine_is_unavailable_with_a_reason(collector: type[Collector], tmp_path: Path) -> None:
    missing = FakeNvml(init_error=FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found"))
    with pytest.raises(Unavailable, match=r"\w{4}"):
        collector(Host(root=tmp_path, environ={}, load_nvml=lambda: missing))


def test_a_directory_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    def gone(path: str) -> DiskUsage:
        raise FileNotFoundError(2, "No such file or directory", path)

    (disk,) = (one for one in LINUX if one.__name__ == "Disk")
    with pytest.raises(Unavailable, match="No such file"):
        disk(Host(root=tmp_path, disk_usage=gone))


@every_host
@every_collector
def test_a_hundred_ticks_leave_as_many_open_files_as_before(
    recorded: Path, collector: type[Collector], tmp_path: Path
) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files can be counted on Linux only")
    host = revive(recorded, tmp_path / "root")
    one = build(collector, host)
    if isinstance(one, Unavailable):
        return
    before = len(os.listdir(descriptors))  # noqa: PTH208 - a list, no open iterator
    for second in range(100):
        list(one.collect(float(second)))
    assert len(os.listdir(descriptors)) == before  # noqa: PTH208 - as above


@pytest.mark.parametrize("collectors", [LINUX, PORTABLE], ids=["linux", "portable"])
def test_names_are_unique_over_all_collectors(collectors: tuple[type[Collector], ...]) -> None:
    names = [metric.name for collector in collectors for metric in collector.metrics]
    assert len(names) == len(set(names))


def test_no_system_has_a_metric_that_linux_lacks() -> None:
    """What an operating system does not have is absent; what it has has Linux's name."""
    linux, portable = (
        {metric for one in collectors for metric in one.metrics} for collectors in (LINUX, PORTABLE)
    )
    assert portable <= linux
