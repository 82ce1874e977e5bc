"""Every file that a collector reads, damaged in every way: nothing raises, and no wrong value is reported."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.collectors.network_linux import NetworkLinux
from mlflow_sysmetrics.daemon.sampling.probe import OK, Probe
from mlflow_sysmetrics.samples import TOTALS, Kind, Sample
from recorded import HOSTS, LINUX, files, metric_of, revive
from reduced import part

pytestmark = pytest.mark.exhaustive

# The machines with most sources: hardware and a process tree, a quota in v2, all of v1, v1 and v2 together.
MACHINES = [
    path for path in HOSTS if path.name in {"bare-metal-numa", "cgroup2-limits", "docker-v1", "hybrid"}
]
# A failing collector pauses for 1 s, then 2 s; by 200 s it has repeated its rare lookups.
DAMAGED_SECONDS, LATER_SECONDS = (0.0, 1.0, 2.0), (3.0, 4.0, 200.0, 400.0, 402.0)
NOBODY = 65_534

damaged_machines = pytest.mark.parametrize("recorded", MACHINES, ids=lambda path: path.name)
every_collector = pytest.mark.parametrize("collector", LINUX, ids=lambda collector: collector.__name__)

Damage = Callable[[bytes], bytes | None]


def numbers_become(text: bytes) -> Damage:
    return lambda content: re.sub(rb"\d+", text, content)


def cut_in_last_number(content: bytes) -> bytes:
    """Truncates within the last number, or before it if it has one digit."""
    found = [*re.finditer(rb"\d+", content)]
    return content[: found[-1].start() + len(found[-1][0]) // 2] if found else b""


DAMAGES: Mapping[str, Damage] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "cut at half": lambda content: content[: len(content) // 2],
    "cut in last number": cut_in_last_number,
    "random bytes": lambda content: random.Random(len(content)).randbytes(200),
    "nan": lambda _: b"nan\n",
    "minus one": lambda _: b"-1\n",
    "thirty digits": lambda _: b"9" * 30 + b"\n",
    "numbers nan": numbers_become(b"nan"),
    "numbers negative": numbers_become(rb"-\g<0>"),
    "numbers of thirty digits": numbers_become(b"9" * 30),
    "numbers of five thousand digits": numbers_become(b"9" * 5000),  # int() takes 4300
}
# A truncated number may be valid: then a counter decreases, and later jumps ahead.
PLAUSIBLE = frozenset({"cut at half", "cut in last number"})


@dataclass
class Reading:
    """One tick: the samples that passed the guard, their collector, and its health."""

    now: float
    samples: list[Sample]
    instance: Collector | None
    health: str


class Machine:
    """A recorded machine whose files a test writes.

    Attributes:
        first: the files at the first moment, by path; `second` holds those one second later.
    """

    def __init__(self, recorded: Path, root: Path) -> None:
        self.root = root
        self.host = revive(recorded, root)
        self.first = files(recorded / "first")
        self.second = {**self.first, **files(recorded / "second")}
        self._changing = frozenset(files(recorded / "second"))
        self._now: dict[str, bytes | None] = dict(self.first)
        self._opened: dict[type[Collector], tuple[str, ...]] = {}

    def put(self, path: str, content: bytes | None) -> None:
        """Writes a file, or removes it; unchanged content is not written again."""
        if self._now[path] is content:
            return
        self._now[path] = content
        file = self.root / path
        file.unlink(missing_ok=True)  # ext4 flushes a file that is truncated and rewritten
        if content is not None:
            file.write_bytes(content)

    def show(self, moment: Mapping[str, bytes], collector: type[Collector] | None = None) -> None:
        """Moves the machine, or the files that a collector reads, to one of its two moments."""
        seen = self._changing if collector is None else self._changing.intersection(self._opened[collector])
        for path in seen:
            self.put(path, moment[path])

    @contextlib.contextmanager
    def unreadable(self, path: str) -> Iterator[None]:
        """Replaces a file by a directory: an error even for root, which may read every file."""
        content = self._now[path]
        self.put(path, None)
        (self.root / path).mkdir()
        try:
            yield
        finally:
            (self.root / path).rmdir()
            self.put(path, content)

    def opened_by(self, collector: type[Collector]) -> tuple[str, ...]:
        """Returns the files that a collector opens on this machine, at both moments."""
        if collector not in self._opened:
            with watched_opens() as opened:
                self.run(collector)
            prefix = f"{self.root}/"
            paths = {path.removeprefix(prefix) for path in opened if path.startswith(prefix)}
            self._opened[collector] = tuple(sorted(paths & self.first.keys()))
        return self._opened[collector]

    def run(self, collector: type[Collector]) -> list[Reading]:
        """Returns the readings of the undamaged machine."""
        self.show(self.first)
        probe = Probe(collector, self.host)
        readings = [read(probe, 0.0)]
        self.show(self.second)
        return readings + [read(probe, now) for now in (*DAMAGED_SECONDS[1:], *LATER_SECONDS)]

    def run_damaged(
        self, collector: type[Collector], path: str, damage: Damage, *, from_the_start: bool
    ) -> list[Reading]:
        """Returns the readings during some ticks with a damaged file, and afterwards."""
        self.show(self.first, collector)
        if from_the_start:
            self.put(path, damage(self.first[path]))
        probe = Probe(collector, self.host)
        readings = [read(probe, 0.0)]
        self.show(self.second, collector)
        self.put(path, damage(self.second[path]))
        readings += [read(probe, now) for now in DAMAGED_SECONDS[1:]]
        self.put(path, self.second[path])
        return readings + [read(probe, now) for now in LATER_SECONDS]


def read(probe: Probe, now: float) -> Reading:
    samples = list(probe.read(now))
    return Reading(now, samples, probe._collector, probe.health)


_opened: list[str] | None = None


def _notice(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
        _opened.append(str(args[0]))


@contextlib.contextmanager
def watched_opens() -> Iterator[list[str]]:
    """Yields a list that collects every file opened for reading in the meantime, by any means."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be removed, only disabled
    if not hasattr(_notice, "installed"):
        sys.addaudithook(_notice)
        _notice.installed = True  # type: ignore[attr-defined]
    _opened = opened = []
    try:
        yield opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Machine]:
    """The machines to damage, built once: each test restores them."""
    return {path: Machine(path, tmp_path_factory.mktemp(path.name) / "root") for path in MACHINES}


@pytest.fixture(autouse=True)
def cpu_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents ticks from being cut short because the test machine is slow."""
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silences the guard, which would log thousands of failures."""
    logger = logging.getLogger("mlflow_sysmetrics")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


def faults(readings: list[Reading], collector: type[Collector]) -> Iterator[str]:
    """Yields faults of readings that no content of the files can justify."""
    last: dict[tuple[int, str], float] = {}
    for reading in readings:
        if reading.health.startswith("failing: ") and not is_expected(reading.health):
            yield f"raises at {reading.now}: {reading.health}"
        for sample in reading.samples:
            unit = metric_of(sample.key, collector).unit
            if sample.value < 0:
                yield f"{sample.key} is {sample.value} at {reading.now}"
            if unit == "%" and sample.value > 100 and sample.key != "process_cpu_percentage":
                yield f"{sample.key} is {sample.value} at {reading.now}"
            if sample.kind in TOTALS:
                which = (id(reading.instance), sample.key)
                if sample.value < last.get(which, 0.0):
                    yield f"{sample.key} falls from {last[which]} to {sample.value} at {reading.now}"
                last[which] = sample.value


def is_expected(health: str) -> bool:
    """Returns whether a collector failed with an error that it may raise: OSError or ValueError of a read."""
    error = getattr(builtins, health.removeprefix("failing: ").partition(":")[0], None)
    return error is not None and issubclass(error, OSError | ValueError)


def jumps(readings: list[Reading], whole: list[Reading]) -> Iterator[str]:
    """Yields the rates and totals that are absurd compared with those of the undamaged machine."""
    kinds = {Kind.RATE, *TOTALS}
    most: dict[str, float] = {}
    for sample in (sample for reading in whole for sample in reading.samples if sample.kind in kinds):
        most[sample.key] = max(most.get(sample.key, 0.0), sample.value)
    for reading in readings:
        for sample in reading.samples:
            if sample.kind in kinds and sample.value > 10 * most.get(sample.key, 0.0) + 1e-9:
                yield f"{sample.key} jumps to {sample.value} at {reading.now}"


def damages_of(content: bytes) -> Iterator[tuple[str, Damage]]:
    """Yields the damages of a file that have distinct results."""
    seen: set[bytes | None] = {content}
    for name, damage in DAMAGES.items():
        made = damage(content)
        if made not in seen:
            seen.add(made)
            yield name, damage


def losses(readings: list[Reading], whole: list[Reading]) -> Iterator[str]:
    """Yields the series still missing after the file was restored, unless a gap reports them."""
    health, healthy = readings[-1].health, whole[-1].health
    if healthy.startswith(OK) and not health.startswith(OK):
        yield f"has not recovered: {health}"
    elif health == healthy:
        left = {sample.key for sample in readings[-1].samples}
        yield from (f"{sample.key} is lost" for sample in whole[-1].samples if sample.key not in left)


@pytest.mark.slow
@damaged_machines
@every_collector
def test_a_damaged_file_harms_nothing(
    recorded: Path, collector: type[Collector], machines: dict[Path, Machine]
) -> None:
    machine = machines[recorded]
    whole = machine.run(collector)
    found = [f"undamaged: {fault}" for fault in faults(whole, collector)]
    for number, path in enumerate(machine.opened_by(collector), start=len(recorded.name)):
        for turn, (name, damage) in enumerate(damages_of(machine.second[path]), start=number):
            for from_the_start in part((True, False), every=2, start=turn):
                readings = machine.run_damaged(collector, path, damage, from_the_start=from_the_start)
                when = "from the start" if from_the_start else "after the first tick"
                wrong = [*faults(readings, collector)]
                if name not in PLAUSIBLE:
                    wrong += jumps(readings, whole)
                wrong += losses(readings, whole)
                found += [f"{path}, {name} {when}: {one}" for one in wrong]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
@damaged_machines
@every_collector
def test_a_vanished_file_harms_nothing(
    recorded: Path, collector: type[Collector], machines: dict[Path, Machine]
) -> None:
    machine = machines[recorded]
    opened = machine.opened_by(collector)
    others = [path for path in machine.first if path not in opened]
    found = []
    for path in (*opened, *part(others, every=4, start=len(collector.__name__))):
        if "/fd/" not in path:
            readings = machine.run_damaged(collector, path, DAMAGES["missing"], from_the_start=False)
            found += [f"{path}: {fault}" for fault in faults(readings, collector)]
    assert not found, "\n" + "\n".join(found)


@damaged_machines
@every_collector
def test_an_unreadable_file_harms_no_other_collector(
    recorded: Path, collector: type[Collector], machines: dict[Path, Machine]
) -> None:
    """A directory in its place is an error even for root; a file without permissions is not."""
    machine = machines[recorded]
    whole = machine.run(collector)
    found = []
    for path in machine.opened_by(collector):
        machine.show(machine.first)
        probe = Probe(collector, machine.host)
        readings = [read(probe, 0.0)]
        machine.show(machine.second)
        with machine.unreadable(path):
            readings += [read(probe, now) for now in DAMAGED_SECONDS[1:]]
            readings += [read(Probe(collector, machine.host), 2.5)]
        readings += [read(probe, now) for now in LATER_SECONDS]
        wrong = [*faults(readings, collector), *jumps(readings, whole)]
        wrong += losses(readings, whole)
        found += [f"{path}: {one}" for one in wrong]
    assert not found, "\n" + "\n".join(found)


@damaged_machines
@every_collector
def test_counters_that_go_backwards_harm_nothing(
    recorded: Path, collector: type[Collector], machines: dict[Path, Machine]
) -> None:
    machine = machines[recorded]
    whole = machine.run(collector)
    probe = Probe(collector, machine.host)
    readings = []
    for now, moment in enumerate((machine.second, machine.first, machine.second, machine.first)):
        machine.show(moment)
        readings.append(read(probe, float(now)))
    assert not [*faults(readings, collector)]
    # A total treats an interface whose counter decreased as restarted from zero; a rate skips the tick.
    totals = {metric.name for metric in NetworkLinux.metrics if metric.kind in TOTALS}
    assert not [jump for jump in jumps(readings[:2], whole) if jump.partition(" ")[0] not in totals]


@damaged_machines
@every_collector
@pytest.mark.parametrize(
    "seconds",
    [(10, 11, 5, 6, 7), (10, 10, 10, 11, 12), (10, 11, 11, 10.9, 12), (1e9, 5, 6, 7), (0, -1, -2, -1, 0)],
    ids=str,
)
def test_a_clock_that_goes_backwards_or_stands_still_harms_nothing(
    recorded: Path, collector: type[Collector], seconds: tuple[float, ...], machines: dict[Path, Machine]
) -> None:
    machine = machines[recorded]
    whole = machine.run(collector)
    machine.show(machine.first)
    probe = Probe(collector, machine.host)
    readings = []
    for now in seconds:
        readings.append(read(probe, float(now)))
        machine.show(machine.second)
    assert not [*faults(readings, collector)]
    assert not [*jumps(readings, whole)]
    assert not any(reading.health.startswith("failing") for reading in readings)


@damaged_machines
def test_other_collectors_are_unaffected_by_damage(recorded: Path, machines: dict[Path, Machine]) -> None:
    machine = machines[recorded]
    opened = {collector: machine.opened_by(collector) for collector in LINUX}
    machine.show(machine.first)
    said = {one: read(Probe(one, machine.host), 0.0).samples for one in LINUX}
    for path in {path for paths in opened.values() for path in paths}:
        others = [one for one in LINUX if path not in opened[one]]
        with machine.unreadable(path):
            found = {one: read(Probe(one, machine.host), 0.0).samples for one in others}
        assert found == {one: said[one] for one in others}


@pytest.fixture(scope="module")
def open_machine() -> Iterator[Machine]:
    """A machine below a directory accessible to every user, unlike the directories of pytest."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Machine(MACHINES[0], Path(directory) / "root")


@contextlib.contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Drops root's permission to read everything for a while."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system's permissions are of another kind")
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError as error:
        pytest.skip(f"root may not become another user here: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


@every_collector
def test_a_file_without_permission_harms_nothing(collector: type[Collector], open_machine: Machine) -> None:
    machine = open_machine
    whole = machine.run(collector)
    found = []
    for path in machine.opened_by(collector):
        machine.show(machine.first)
        file = machine.root / path
        probe = Probe(collector, machine.host)
        readings = []
        for now in (0.0, *DAMAGED_SECONDS[1:]):
            with as_ordinary_user():
                readings.append(read(probe, now))
                readings.append(read(Probe(collector, machine.host), now))
            file.chmod(0o000)
        file.chmod(0o644)
        wrong = [*faults(readings, collector), *jumps(readings, whole)]
        found += [f"{path}: {one}" for one in wrong]
    assert not found, "\n" + "\n".join(found)
