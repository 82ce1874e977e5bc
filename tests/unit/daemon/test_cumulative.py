"""What only counts is read when a point is due, and its points are those of a reading at each tick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes import LEVEL, SHARE, STARTED_AT, TOTAL, FakeClock, FakeSink, Scripted, scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.exports.watch import Watch
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.settings import Settings


class Bench:
    """A sampler whose thread is the test, with a level and a counter that grows by the square of time."""

    def __init__(self, *, cumulative: bool) -> None:
        self.clock = clock = FakeClock()
        self.read_at: list[float] = []
        bench = self

        class Counter(Scripted):
            last: tuple[float, float] | None = None

            def collect(self, now: float) -> Iterator[Sample]:
                bench.read_at.append(now - 100)
                if self.error is not None:
                    raise self.error
                count = (now - 100) ** 2
                if self.last is not None and now > self.last[0]:
                    span = now - self.last[0]
                    yield SHARE.sample((count - self.last[1]) / span, span)
                yield TOTAL.sample(count)
                self.last = now, count

        Counter.cumulative = cumulative  # type: ignore[attr-defined]
        self.counter = Counter
        self.host = Host()
        self.probes = [Probe(one, self.host) for one in (scripted(level=10), Counter)]
        self.sampler = Sampler(self.probes, clock)
        self.sender = Sender("uri", lambda _: FakeSink(), clock)

    def series(self, run_id: str = "run") -> RunSeries:
        settings = Settings(sampling_interval=1, samples_before_logging=10, resolution="constant")
        series = RunSeries(("uri", run_id), settings, Channel(self.sender, RunQueue(run_id, STARTED_AT, 1e3)))
        self.sampler.add(series)
        return series

    def pass_time(self, seconds: float) -> None:
        ends = self.clock.seconds + seconds
        while True:
            before = self.sampler.ticks
            self.sampler.run_due()
            if self.sampler.ticks == before:
                if self.sampler._due_at > ends:
                    break
                self.clock.seconds = max(self.clock.seconds, self.sampler._due_at)
        self.clock.seconds = ends


def points_of(series: RunSeries) -> list[tuple[str, float, float]]:
    return [(point.key, point.value, point.timestamp) for point in series.channel.queue.peek(1000).points]


def test_it_is_read_when_a_run_comes_a_window_closes_and_a_run_goes() -> None:
    bench = Bench(cumulative=True)
    series = bench.series()
    bench.pass_time(25)
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert bench.read_at == [0, 10, 20, 25]


def test_the_points_are_those_of_a_reading_at_each_tick() -> None:
    found = []
    for cumulative in (False, True):
        bench = Bench(cumulative=cumulative)
        first = bench.series()
        bench.pass_time(13.5)
        second = bench.series("second")
        bench.pass_time(21)
        bench.sampler.remove(first)
        bench.sampler.remove(second)
        bench.pass_time(0)
        found.append((points_of(first), points_of(second)))
    assert found[0] == found[1]
    assert len(found[0][1]) > 9


def test_a_watch_has_it_read_at_each_tick_from_its_arrival_on() -> None:
    bench = Bench(cumulative=True)
    bench.series()
    bench.pass_time(4.5)
    watch = Watch(bench.sampler, bench.clock, 1.0)
    assert watch.read().keys() == {LEVEL.name, TOTAL.name}
    bench.pass_time(0)
    assert watch.read() == {LEVEL.name: 10, TOTAL.name: 4.5**2, SHARE.name: 4.5}
    bench.pass_time(3)
    assert bench.read_at == [0, 4.5, 5, 6, 7]
    watch.close()
    bench.pass_time(4)
    assert bench.read_at[5:] == [10]


def test_a_lapsed_watch_shows_the_rates_of_the_last_window_with_the_current_levels() -> None:
    bench = Bench(cumulative=True)
    bench.series()
    bench.pass_time(15.5)
    assert {sample.key: sample.value for sample in bench.sampler.latest[1]} == {
        LEVEL.name: 10,
        TOTAL.name: 100,
        SHARE.name: 10,
    }


def test_a_change_of_the_limits_has_it_read_at_the_next_tick() -> None:
    bench = Bench(cumulative=True)
    bench.series()
    bench.pass_time(3)
    bench.host.files.version += 1
    bench.pass_time(3)
    assert bench.read_at == [0, 4]


def test_one_that_fails_is_tried_again_as_any_other(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(cumulative=True)
    bench.series()
    bench.pass_time(9)
    bench.counter.error = OSError(5, "Input/output error")
    bench.pass_time(1)
    bench.counter.error = None
    bench.pass_time(5)
    assert bench.read_at[:2] == [0, 10]
    assert bench.read_at[2] in {11, 12}, "after a pause of a second, not at the end of the window"


def test_a_watch_that_begins_between_two_points_soon_has_rates() -> None:
    bench = Bench(cumulative=True)
    bench.series()
    bench.pass_time(1.05)
    watch = Watch(bench.sampler, bench.clock, 1.0)
    bench.pass_time(0.3)
    assert SHARE.name in watch.read()
    assert bench.sampler.readings == 2
