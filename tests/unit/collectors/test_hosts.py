"""All collectors on all recorded machines: their output, and the contract of every collector."""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fake_nvml import FakeNvml
from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.catalogue.cpu_and_memory import SWAP_USAGE
from mlflow_sysmetrics.collectors.cpu_linux import CpuLinux
from mlflow_sysmetrics.collectors.disk import Disk
from mlflow_sysmetrics.collectors.memory_linux import MemoryLinux
from mlflow_sysmetrics.collectors.torch_allocator import TorchAllocator
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import DiskUsage, Host
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family, Kind, Sample
from recorded import HOSTS, LINUX, PORTABLE, advance, build, every_host, facts, metric_of, revive
from reduced import part
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


@dataclass(frozen=True)
class Observed:
    """What the facts and the collectors report of a machine at its two moments, and why some are absent."""

    tags: Mapping[str, str]
    samples: tuple[Mapping[type[Collector], list[Sample]], Mapping[type[Collector], list[Sample]]]
    gaps: Mapping[type[Collector], tuple[str, ...]]
    reasons: Mapping[type[Collector], str]

    def both(self, collector: type[Collector]) -> list[Sample]:
        """Returns the samples of both moments; none of a collector that is absent."""
        return [sample for moment in self.samples for sample in moment.get(collector, ())]

    def described(self) -> str:
        """Returns the text of a golden file."""
        lines = ["facts", *(f"  {tag} {value}" for tag, value in self.tags.items())]
        for second, moment in enumerate(self.samples):
            lines.append(f"second {second}")
            for kind, samples in moment.items():
                units = (metric_of(sample.key, kind).unit for sample in samples)
                lines += [
                    f"  {one.key} {one.value:.3f} {unit}" for one, unit in zip(samples, units, strict=True)
                ]
        lines.append("gaps")
        lines += [f"  {kind.__name__}: {gap}" for kind, gaps in self.gaps.items() for gap in gaps]
        return "\n".join(lines) + "\n"


def observe(recorded: Path, root: Path) -> Observed:
    """Builds all collectors on a machine, in the order of a tick, and has them collect at both moments."""
    host = revive(recorded, root)
    tags = facts(host)
    built = {kind: build(kind, host) for kind in LINUX}
    present = {kind: one for kind, one in built.items() if not isinstance(one, Unavailable)}
    first = {kind: list(one.collect(0.0)) for kind, one in present.items()}
    advance(recorded, root)
    second = {kind: list(one.collect(1.0)) for kind, one in present.items()}
    return Observed(
        tags={tag: value.replace(str(root), "") for tag, value in tags.items()},
        samples=(first, second),
        gaps={kind: tuple(gap.replace(str(root), "") for gap in one.gaps) for kind, one in present.items()},
        reasons={
            kind: str(one).replace(str(root), "")
            for kind, one in built.items()
            if isinstance(one, Unavailable)
        },
    )


@pytest.fixture(scope="module")
def observations(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Observed]:
    """Observes a recorded machine, once for all tests that look at what was found."""
    return functools.cache(lambda recorded: observe(recorded, tmp_path_factory.mktemp(recorded.name)))


@pytest.fixture
def observed(recorded: Path, observations: Callable[[Path], Observed]) -> Observed:
    return observations(recorded)


def both_moments(
    recorded: Path, built: Mapping[type[Collector], Collector], root: Path
) -> dict[type[Collector], list[Sample]]:
    """Returns what collectors yield at the first moment and, one second later, at the second."""
    samples = {kind: list(one.collect(0.0)) for kind, one in built.items()}
    advance(recorded, root)
    for kind, one in built.items():
        samples[kind] += one.collect(1.0)
    return samples


@every_host
def test_output_matches_the_golden_file(
    recorded: Path, observed: Observed, request: pytest.FixtureRequest
) -> None:
    found = observed.described()
    expected = recorded / "expected.txt"
    if request.config.getoption("--bless"):
        expected.write_text(found)
    assert found == expected.read_text(), BLESS


@every_collector
def test_reasons_for_absence_match_the_golden_file(
    collector: type[Collector],
    observations: Callable[[Path], Observed],
    request: pytest.FixtureRequest,
) -> None:
    """One file per collector, so that a new collector leaves the files of the others as they are."""
    reasons = {recorded.name: observations(recorded).reasons.get(collector) for recorded in HOSTS}
    found = "".join(f"{name}: {reason}\n" for name, reason in reasons.items() if reason is not None)
    expected = ABSENT / f"{collector.__name__}.txt"
    if request.config.getoption("--bless"):
        expected.unlink(missing_ok=True)
        if found:
            expected.write_text(found)
    assert found == (expected.read_text() if expected.exists() else ""), BLESS


def test_every_reasons_file_belongs_to_a_collector() -> None:
    assert {path.stem for path in ABSENT.iterdir()} <= {collector.__name__ for collector in LINUX}


@every_host
def test_samples_have_finite_values_and_valid_unique_keys(recorded: Path, observed: Observed) -> None:
    for collector, reason in observed.reasons.items():
        assert reason, collector
    for moment in observed.samples:
        for collector, samples in moment.items():
            wrong = [sample for sample in samples if not (math.isfinite(sample.value) and sample.value >= 0)]
            assert not wrong, collector
            assert len({sample.key for sample in samples}) == len(samples), collector
            for sample in samples:
                assert_described(sample, collector)


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


@pytest.mark.slow
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
        for second in part(range(100), every=4, start=0):  # as long a time, for what is looked up rarely
            list(one.collect(float(second)))
        # Threads of other tests may have a file open for a moment; a leaked one stays open.
        eventually(lambda limit=before: len(os.listdir(descriptors)) <= limit, 10)


@every_host
def test_every_machine_stays_within_the_series_limit(recorded: Path, observed: Observed) -> None:
    """Counts the series of the machine itself, without those that a limit, trouble or the user adds."""
    counted = [one for one in LINUX if one.family in DEFAULT_FAMILIES - {Family.GPU}]
    keys = set()
    for collector in counted:
        for sample in observed.both(collector):
            metric = metric_of(sample.key, collector)
            if not metric.only or metric is SWAP_USAGE:
                keys.add(sample.key)
    assert len(keys) <= MOST_SERIES


def test_the_catalogue_stays_within_the_series_limit() -> None:
    metrics = {metric for collector in LINUX for metric in collector.metrics}
    regular = [one for one in metrics if one.family in DEFAULT_FAMILIES - {Family.GPU} and not one.only]
    assert len([*regular, SWAP_USAGE]) <= MOST_SERIES


@every_host
def test_events_are_zero_at_the_first_moment(recorded: Path, observed: Observed) -> None:
    for samples in observed.samples[0].values():
        assert not [sample for sample in samples if sample.kind is Kind.EVENTS and sample.value]


@every_host
def test_host_series_exist_only_if_the_job_is_limited(recorded: Path, observed: Observed) -> None:
    tags = observed.tags
    limited_cpu = tags["sys.cpu_cores_effective"] != tags["sys.cpu_cores"]
    cpu_keys = {sample.key for sample in observed.both(CpuLinux)}
    assert ("host_cpu_utilization_percentage" in cpu_keys) is limited_cpu
    limited_memory = "sys.memory_limit_gb" in tags
    memory_keys = {sample.key for sample in observed.both(MemoryLinux)}
    assert ("host_memory_usage_percentage" in memory_keys) is limited_memory


@every_host
def test_an_unlimited_job_reports_the_same_as_without_cgroups(
    recorded: Path, observed: Observed, tmp_path: Path
) -> None:
    host = revive(recorded, tmp_path / "without")
    (tmp_path / "without/proc/self/cgroup").unlink(missing_ok=True)
    built: dict[type[Collector], Collector] = {one: one(host) for one in (CpuLinux, MemoryLinux)}
    for collector, without in both_moments(recorded, built, tmp_path / "without").items():
        with_groups = observed.both(collector)
        limited = any(sample.key.startswith("host_") for sample in with_groups)
        assert limited or without == with_groups, collector


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
def test_collectors_of_a_machine_share_no_series(recorded: Path, observed: Observed) -> None:
    for moment in observed.samples:
        keys = Counter(sample.key for samples in moment.values() for sample in samples)
        assert set(keys.values()) <= {1}


def test_other_systems_have_only_metrics_of_linux() -> None:
    """A metric that an operating system lacks is absent; all others have the names of Linux."""
    linux, portable = (
        {metric for one in collectors for metric in one.metrics} for collectors in (LINUX, PORTABLE)
    )
    assert portable <= linux
