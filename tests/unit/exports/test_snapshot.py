"""A snapshot is the last tick, with units and ages, and costs no reading of its own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest

from fakes import LEVEL, SHARE, STARTED_AT, TOTAL, FakeClock, FakeSink, Scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.exports import Reading, last_tick, snapshot
from mlflow_sysmetrics.exports.last_tick import Source, show
from mlflow_sysmetrics.exports.readings import METRICS, Snapshot, metric_of
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.settings import Settings


class Levels(Scripted):
    """A level that is the time, read at each tick."""

    def collect(self, now: float) -> Iterator[Sample]:
        yield LEVEL.sample(now)


class Totals(Scripted):
    """A total and its rate, which are read when a point is due."""

    cumulative = True

    def collect(self, now: float) -> Iterator[Sample]:
        yield TOTAL.sample(now)
        yield SHARE.sample(1.0, 1.0)


class Bench:
    """A sampler whose thread is the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sampler = Sampler([Probe(one, Host(), transparent=True) for one in (Levels, Totals)], self.clock)
        self.source = Source(self.sampler, self.clock, lambda: ())
        sender = Sender("uri", lambda _: FakeSink(), self.clock)
        settings = Settings(sampling_interval=1, samples_before_logging=10, resolution="constant")
        self.series = RunSeries(("uri", "run"), settings, Channel(sender, RunQueue("run", STARTED_AT, 1e3)))

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.move(seconds)
        self.sampler.run_due()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(last_tick, "_source", None)
    return Bench()


def test_there_is_none_before_anything_is_sampled(bench: Bench) -> None:
    assert snapshot() == {}
    show(bench.source)
    assert snapshot() == {}


def test_levels_are_of_the_last_tick_and_totals_of_the_last_that_was_due(bench: Bench) -> None:
    show(bench.source)
    bench.sampler.add(bench.series)
    bench.tick()
    for _ in range(3):
        bench.tick(1)
    bench.clock.move(0.25)
    found = snapshot()
    assert found[LEVEL.name] == Reading(value=103, unit="", age=0.25, kind="gauge")
    assert (found[TOTAL.name].value, found[TOTAL.name].age) == (100, 3.25)
    for _ in range(7):
        bench.tick(1)
    assert (snapshot()[TOTAL.name].value, snapshot()[TOTAL.name].age) == (110.25, 0)


def test_it_is_empty_again_after_the_last_run(bench: Bench) -> None:
    show(bench.source)
    bench.sampler.add(bench.series)
    bench.tick()
    bench.sampler.remove(bench.series)
    bench.tick()
    bench.clock.move(2)
    assert snapshot() == {}


def test_it_reads_nothing(bench: Bench) -> None:
    show(bench.source)
    bench.sampler.add(bench.series)
    bench.tick()
    before = bench.sampler.ticks
    assert snapshot() == snapshot()
    assert bench.sampler.ticks == before


def test_two_ticks_in_quick_succession_do_not_make_older_values_younger(bench: Bench) -> None:
    show(bench.source)
    bench.sampler.add(bench.series)
    bench.tick()
    bench.tick(1)
    bench.sampler.flush()
    bench.tick(0.1)  # reads everything, too soon for rates
    bench.tick(0.9)
    assert snapshot()[TOTAL.name].age >= 0.9
    assert snapshot()[LEVEL.name].age == 0


def test_it_cannot_be_changed_and_can_be_pickled() -> None:
    found = Snapshot({"a": Reading(value=1, unit="%", age=0, kind="gauge")})
    with pytest.raises(TypeError):
        found["b"] = found["a"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        found._readings = {}
    assert pickle.loads(pickle.dumps(found)) == found
    assert "1.000 %" in repr(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_none(bench: Bench) -> None:
    show(bench.source)
    bench.sampler.add(bench.series)
    bench.tick()
    assert snapshot()
    pid = os.fork()
    if not pid:
        os._exit(bool(snapshot()))
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_each_key_is_of_its_own_metric(metric: object) -> None:
    key = metric.key(i=12, name="data")  # type: ignore[attr-defined]
    found, which = metric_of(key)
    assert found is metric
    assert which == ("12" if "{i}" in metric.name else "data" if "{name}" in metric.name else "")  # type: ignore[attr-defined]


def test_a_key_of_a_foreign_collector_has_no_metric() -> None:
    assert metric_of("tape_robot_arms") == (None, "")
