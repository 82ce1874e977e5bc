"""All collectors on all recorded machines: their output, and the contract of every collector."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.catalogue.memory import SWAP_USAGE
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.disk import Disk
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux
from mlflow_sysmetrics.collectors.torch_allocator import TorchAllocator
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family, Kind, Sample
from recorded import HOSTS, LINUX, PORTABLE, advance, build, every_host, facts, metric_of, revive
from watching import eventually

# Suffixes of keys whose unit is a symbol; a count ("threads") ends with its unit.
SUFFIXES = {
    "%": "percentage",
    "MB": "megabytes",
    "MB/s": "megabytes_per_second",
    "W": "watts",
    "Wh": "watt_hours",
    "deg C": "celsius",
    "MHz": "megahertz",
    "processes": "children",
}
MOST_SERIES = 26  # per node by default, without GPUs: more would crowd the tab of charts

# Filesystem sizes come from a call; torch's memory comes from the program, which may import torch later.
NOT_FROM_FILES = (Disk, TorchAllocator)
ABSENT = Path(__file__).parents[2] / "hosts" / "absent"
BLESS = "if this is intended: pytest --bless tests/unit/collectors"

every_collector = pytest.mark.parametrize("collector", LINUX, ids=lambda collector: collector.__name__)


@pytest.fixture(autouse=True)
def cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents ticks from being cut short because the test machine is slow."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


def describe(recorded: Path, root: Path) -> str:
    """Returns what the facts and the collectors report of a machine at both moments, as text."""
    host = revive(recorded, root)
    lines = ["facts", *(f"  {tag} {value}" for tag, value in facts(host).items())]
    built = [(collector, build(collector, host)) for collector in LINUX]
    for second in (0, 1):
        if second:
            advance(recorded, root)
        lines.append(f"second {second}")
        for kind, one in built:
            if not isinstance(one, Unavailable):
                lines += [
                    f"  {sample.key} {sample.value:.3f} {metric_of(sample.key, kind).unit}"
                    for sample in one.collect(float(second))
                ]
    lines.append("gaps")
    for kind, one in built:
        if not isinstance(one, Unavailable):
            lines += [f"  {kind.__name__}: {gap}" for gap in one.gaps]
    return "\n".join(lines).replace(str(root), "") + "\n"


def both_seconds(
    recorded: Path, collectors: Iterable[type[Collector]], root: Path
) -> dict[type[Collector], list[Sample]]:
    """Returns the samples of both moments; none of a collector whose source the machine does not have."""
    host = revive(recorded, root)
    built = {kind: build(kind, host) for kind in collectors}
    return both_moments(recorded, built, root)


def both_moments(
    recorded: Path, built: Mapping[type[Collector], Collector | Unavailable], root: Path
) -> dict[type[Collector], list[Sample]]:
    """Returns what collectors yield at the first moment and, one second later, at the second."""
    samples: dict[type[Collector], list[Sample]] = {kind: [] for kind in built}
    for second in (0, 1):
        if second:
            advance(recorded, root)
        for kind, one in built.items():
            if not isinstance(one, Unavailable):
                samples[kind] += one.collect(float(second))
    return samples


@every_host
def test_output_matches_the_golden_file(
    recorded: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = describe(recorded, tmp_path / "root")
    expected = recorded / "expected.txt"
    if request.config.getoption("--bless"):
        expected.write_text(found)
    assert found == expected.read_text(), BLESS


@pytest.fixture(scope="module")
def absences(tmp_path_factory: pytest.TempPathFactory) -> Mapping[type[Collector], Mapping[str, str]]:
    """The reason why each collector is absent, by machine; built in order, as GPU ordinals require."""
    found: dict[type[Collector], dict[str, str]] = {collector: {} for collector in LINUX}
    for recorded in HOSTS:
        root = tmp_path_factory.mktemp(recorded.name)
        host = revive(recorded, root)
        for collector in LINUX:
            one = build(collector, host)
            if isinstance(one, Unavailable):
                found[collector][recorded.name] = str(one).replace(str(root), "")
    return found


@every_collector
def test_reasons_for_absence_match_the_golden_file(
    collector: type[Collector],
    absences: Mapping[type[Collector], Mapping[str, str]],
    request: pytest.FixtureRequest,
) -> None:
    """One file per collector, so that a new collector leaves the files of the others as they are."""
    found = "".join(f"{name}: {reason}\n" for name, reason in absences[collector].items())
    expected = ABSENT / f"{collector.__name__}.txt"
    if request.config.getoption("--bless"):
        expected.unlink(missing_ok=True)
        if found:
            expected.write_text(found)
    assert found == (expected.read_text() if expected.exists() else ""), BLESS


def test_every_reasons_file_belongs_to_a_collector() -> None:
    assert {path.stem for path in ABSENT.iterdir()} <= {collector.__name__ for collector in LINUX}


@every_host
def test_samples_have_finite_values_and_valid_unique_keys(recorded: Path, tmp_path: Path) -> None:
    host = revive(recorded, tmp_path / "root")
    built = {collector: build(collector, host) for collector in LINUX}
    for collector, one in built.items():
        assert not isinstance(one, Unavailable) or str(one), collector
    for second in (0, 1):
        for collector, one in built.items():
            samples = [] if isinstance(one, Unavailable) else list(one.collect(float(second)))
            wrong = [sample for sample in samples if not (math.isfinite(sample.value) and sample.value >= 0)]
            assert not wrong, collector
            assert len({sample.key for sample in samples}) == len(samples), collector
            for sample in samples:
                assert_described(sample, collector)
        advance(recorded, tmp_path / "root")


def assert_described(sample: Sample, collector: type[Collector]) -> None:
    metric = metric_of(sample.key, collector)
    assert sample.kind is metric.kind
    assert metric.family is collector.family
    assert metric.name.endswith(f"_{SUFFIXES.get(metric.unit, metric.unit)}")
    assert re.fullmatch(r"[a-z0-9_]+", sample.key)


@pytest.mark.parametrize(
    "collector", [one for one in LINUX if one not in NOT_FROM_FILES], ids=lambda one: one.__name__
)
def test_an_empty_machine_is_unavailable_with_a_reason(collector: type[Collector], tmp_path: Path) -> None:
    missing = FakeNvml(init_error=FakeNvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found"))
    with pytest.raises(Unavailable, match=r"\w{4}"):
        collector(Host(root=tmp_path, environ={}, load_nvml=lambda: missing))


def test_a_missing_working_directory_is_unavailable(tmp_path: Path) -> None:
    def gone(path: str) -> DiskUsage:
        raise FileNotFoundError(2, "No such file or directory", path)

    with pytest.raises(Unavailable, match="No such file"):
        Disk(Host(root=tmp_path, disk_usage=gone))


@every_host
def test_a_hundred_ticks_leave_as_many_open_files_as_before(recorded: Path, tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files can be counted on Linux only")
    host = revive(recorded, tmp_path / "root")
    for collector in LINUX:
        one = build(collector, host)
        if isinstance(one, Unavailable):
            continue
        before = len(os.listdir(descriptors))
        for second in range(100):
            list(one.collect(float(second)))
        # Threads of other tests may have a file open for a moment; a leaked one stays open.
        eventually(lambda limit=before: len(os.listdir(descriptors)) <= limit, 10)


@every_host
def test_every_machine_stays_within_the_series_limit(recorded: Path, tmp_path: Path) -> None:
    """Counts the series of the machine itself, without those that a limit, trouble or the user adds."""
    counted = [one for one in LINUX if one.family in DEFAULT_FAMILIES - {Family.GPU}]
    keys = set()
    for collector, samples in both_seconds(recorded, counted, tmp_path / "root").items():
        for sample in samples:
            metric = metric_of(sample.key, collector)
            if not metric.only or metric is SWAP_USAGE:
                keys.add(sample.key)
    assert len(keys) <= MOST_SERIES


def test_the_catalogue_stays_within_the_series_limit() -> None:
    metrics = {metric for collector in LINUX for metric in collector.metrics}
    regular = [one for one in metrics if one.family in DEFAULT_FAMILIES - {Family.GPU} and not one.only]
    assert len([*regular, SWAP_USAGE]) <= MOST_SERIES


@every_host
def test_events_are_zero_at_the_first_moment(recorded: Path, tmp_path: Path) -> None:
    host = revive(recorded, tmp_path / "root")
    for collector in LINUX:
        one = build(collector, host)
        samples = [] if isinstance(one, Unavailable) else one.collect(0.0)
        assert not [sample for sample in samples if sample.kind is Kind.EVENTS and sample.value]


@every_host
def test_host_series_exist_only_if_the_job_is_limited(recorded: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    host = revive(recorded, root)
    tags = facts(host)
    samples = both_moments(recorded, {one: build(one, host) for one in (CpuLinux, MemoryLinux)}, root)
    found = {collector: {sample.key for sample in samples[collector]} for collector in samples}
    limited_cpu = tags["sys.cpu_cores_effective"] != tags["sys.cpu_cores"]
    assert ("host_cpu_utilization_percentage" in found[CpuLinux]) is limited_cpu
    limited_memory = "sys.memory_limit_gb" in tags
    assert ("host_memory_usage_percentage" in found[MemoryLinux]) is limited_memory


@every_host
def test_an_unlimited_job_reports_the_same_as_without_cgroups(recorded: Path, tmp_path: Path) -> None:
    collectors = (CpuLinux, MemoryLinux)
    with_groups = both_seconds(recorded, collectors, tmp_path / "with")
    host = revive(recorded, tmp_path / "without")
    (tmp_path / "without/proc/self/cgroup").unlink(missing_ok=True)
    built: dict[type[Collector], Collector | Unavailable] = {one: one(host) for one in collectors}
    without = both_moments(recorded, built, tmp_path / "without")
    for collector in collectors:
        limited = any(sample.key.startswith("host_") for sample in with_groups[collector])
        assert limited or without[collector] == with_groups[collector], collector


every_system = pytest.mark.parametrize("collectors", [LINUX, PORTABLE], ids=["linux", "portable"])


@every_system
def test_names_are_unique(collectors: tuple[type[Collector], ...]) -> None:
    metrics = {metric for collector in collectors for metric in collector.metrics}
    assert len({metric.name for metric in metrics}) == len(metrics)


@every_system
def test_only_gpu_metrics_have_several_sources(collectors: tuple[type[Collector], ...]) -> None:
    """GPUs of all vendors share metric names but have distinct ordinals."""
    sources = Counter(metric for collector in collectors for metric in collector.metrics)
    shared = [metric for metric, count in sources.items() if count > 1]
    assert all(metric.name.startswith("gpu_{i}_") for metric in shared)


@every_host
def test_collectors_of_a_machine_share_no_series(recorded: Path, tmp_path: Path) -> None:
    host = revive(recorded, tmp_path / "root")
    built = [one for one in (build(kind, host) for kind in LINUX) if not isinstance(one, Unavailable)]
    for second in (0, 1):
        keys = Counter(sample.key for one in built for sample in one.collect(float(second)))
        assert set(keys.values()) <= {1}
        advance(recorded, tmp_path / "root")


def test_other_systems_have_only_metrics_of_linux() -> None:
    """A metric that an operating system lacks is absent; all others have the names of Linux."""
    linux, portable = (
        {metric for one in collectors for metric in one.metrics} for collectors in (LINUX, PORTABLE)
    )
    assert portable <= linux
