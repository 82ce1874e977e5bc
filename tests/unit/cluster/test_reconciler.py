"""When engines are told which runs are attached."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from mlflow_sysmetrics.cluster import engines
from mlflow_sysmetrics.cluster.engines import reconciler
from mlflow_sysmetrics.cluster.engines.reconciler import Reconciler
from mlflow_sysmetrics.cluster.engines.samplers import Run
from mlflow_sysmetrics.daemon import process
from mlflow_sysmetrics.daemon.process import tell_engines
from mlflow_sysmetrics.settings import Settings

pytestmark = pytest.mark.unit
URI = "http://tracking:5000"


@dataclass
class Attached:
    """A run that the program has attached."""

    run_id: str
    tracking_uri: str = URI
    is_attached: bool = True


@dataclass(eq=False)
class Engine:
    """Records what it is told."""

    connected: bool = True
    told: list[Sequence[str]] = field(default_factory=list)
    closed: int = 0
    fault: Exception | None = None
    pids: tuple[int, ...] = ()

    def is_connected(self) -> bool:
        return self.connected

    def reconcile(self, runs: Sequence[Run]) -> Iterable[int]:
        self.told.append([run.run_id for run in runs])
        if self.fault is not None:
            raise self.fault
        return self.pids

    def close(self, timeout: float) -> None:
        self.closed += 1


@dataclass
class Home:
    """Records what this process holds."""

    held: list[str] = field(default_factory=list)
    pids: tuple[int, ...] = ()

    def hold(self, runs: Sequence[Run]) -> None:
        self.held = [run.run_id for run in runs]

    def tell(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)


class Watched(Reconciler):
    """A reconciler whose looks a test takes."""

    def __init__(self, *engines: Engine) -> None:
        self.now = 1000.0
        self.home = Home()
        super().__init__(lambda: engines, self.home, clock=lambda: self.now)

    def attach(self, run: str) -> Attached:
        attached = Attached(run)
        self._attached[Run(URI, run)] = attached
        return attached

    def after(self, seconds: float) -> bool:
        self.now += seconds
        return self.look()


def test_a_run_is_told_at_once_and_its_end_closes_the_engine() -> None:
    engine = Engine()
    watched = Watched(engine)
    run = watched.attach("a")
    assert watched.look()
    assert (engine.told, watched.home.held) == ([["a"]], ["a"])
    run.is_attached = False
    assert not watched.after(1)
    assert (engine.closed, watched.home.held) == (1, [])


def test_nodes_are_reconciled_soon_after_a_start_and_then_every_30_seconds() -> None:
    engine = Engine()
    watched = Watched(engine)
    watched.attach("a")
    told = []
    for _ in range(100):
        before = len(engine.told)
        watched.after(1)
        if len(engine.told) > before:
            told.append(watched.now - 1001)
    assert told == [0, 5, 10, 15, 45, 75]


def test_a_second_run_is_told_at_once_with_the_first() -> None:
    engine = Engine()
    watched = Watched(engine)
    watched.attach("a")
    watched.look()
    watched.attach("b")
    watched.after(1)
    assert engine.told == [["a"], ["a", "b"]]


def test_one_of_two_runs_that_ends_is_left_out_and_nothing_is_closed() -> None:
    engine = Engine()
    watched = Watched(engine)
    first, _ = watched.attach("a"), watched.attach("b")
    watched.look()
    first.is_attached = False
    watched.after(1)
    assert (engine.told[-1], engine.closed) == (["b"], 0)


def test_a_program_that_connects_after_its_run_has_started_is_seen_within_a_second() -> None:
    engine = Engine(connected=False)
    watched = Watched(engine)
    watched.attach("a")
    watched.look()
    assert (engine.told, watched.home.held) == ([], [])  # a program on its own takes part in nothing
    engine.connected = True
    watched.after(1)
    assert (engine.told, watched.home.held) == ([["a"]], ["a"])


def test_a_program_that_disconnects_and_connects_again_is_told_anew() -> None:
    engine = Engine()
    watched = Watched(engine)
    watched.attach("a")
    watched.look()
    engine.connected = False
    watched.after(1)
    assert watched.home.held == []
    engine.connected = True
    watched.after(1)
    assert engine.told == [["a"], ["a"]]


def test_an_engine_that_raises_neither_stops_the_others_nor_is_asked_each_second() -> None:
    broken, engine = Engine(fault=RuntimeError("the raylet has gone")), Engine(pids=(7, 8))
    watched = Watched(broken, engine)
    watched.attach("a")
    for _ in range(4):
        assert watched.after(1)
    assert (len(broken.told), engine.told, watched.home.pids) == (1, [["a"]], (7, 8))


def test_an_exit_closes_only_engines_that_were_told_of_a_run() -> None:
    engine, other = Engine(), Engine(connected=False)
    watched = Watched(engine, other)
    watched.attach("a")
    watched.look()
    watched.close(5)
    assert (engine.closed, other.closed, watched.home.held) == (1, 0, [])


def test_only_engines_that_the_program_has_imported_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_engines", {})
    for library in reconciler.HOMES:
        monkeypatch.delitem(sys.modules, library, raising=False)
    assert reconciler._loaded() == []
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    [engine] = reconciler._loaded()
    assert not engine.is_connected()  # of a module that is not Ray's, or that is only half imported


class Attachment:
    """A run that is attached in this process."""

    run_id, tracking_uri, is_attached = "a" * 32, URI, True


@pytest.mark.parametrize(
    ("imported", "cluster", "asked"),
    [
        ("ray", True, True),
        ("distributed", True, True),
        ("pyspark", True, True),
        (None, True, False),
        ("ray", False, False),
    ],
)
def test_engines_are_asked_only_where_one_is_imported_and_they_are_not_off(
    imported: str | None, cluster: bool, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    for library in reconciler.HOMES:
        monkeypatch.delitem(sys.modules, library, raising=False)
    if imported is not None:
        monkeypatch.setitem(sys.modules, imported, type(sys)(imported))
    monkeypatch.setattr(engines, "start", started.append)
    attachment = Attachment()
    tell_engines(attachment, Settings(cluster=cluster))
    assert started == [attachment] * asked


def test_all_engines_are_known_where_a_run_is_attached() -> None:
    assert reconciler.HOMES.keys() == process._ENGINES
