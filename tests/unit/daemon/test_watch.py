"""A watch shows the last reading without waiting for one."""

from __future__ import annotations

import pytest

from fakes import LEVEL, SHARE, STARTED_AT, FakeClock, FakeSink, scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.exports.watch import Watch
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.settings import Settings


class Bench:
    """A sampler whose thread is the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.collector = scripted(level=10, share=50)
        self.sampler = Sampler([Probe(self.collector, Host(), transparent=True)], self.clock)

    def watch(self, interval: float = 1.0) -> Watch:
        return Watch(self.sampler, self.clock, interval)

    def series(self, interval: float) -> RunSeries:
        sender = Sender("uri", lambda _: FakeSink(), self.clock)
        settings = Settings(sampling_interval=interval, samples_before_logging=1)
        series = RunSeries(("uri", "run"), settings, Channel(sender, RunQueue("run", STARTED_AT, 1e3)))
        self.sampler.add(series)
        return series

    def pass_time(self, seconds: float) -> list[float]:
        """Does what the sampler's thread would do, and returns when it ticked."""
        ends = self.clock.seconds + seconds
        ticked = []
        while True:
            before = self.sampler.ticks
            self.sampler.run_due()
            if self.sampler.ticks > before:
                ticked.append(round(self.clock.seconds - 100, 3))
            elif self.sampler._due_at > ends:
                self.clock.seconds = ends
                return ticked
            else:
                self.clock.seconds = max(self.clock.seconds, self.sampler._due_at)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_levels_are_visible_at_once_and_rates_a_fifth_of_a_second_later(bench: Bench) -> None:
    watch = bench.watch()
    assert watch.read() == {}
    assert bench.pass_time(2.5) == [0, 0.2, 1, 2]
    assert watch.read() == {LEVEL.name: 10, SHARE.name: 50}


def test_a_watch_not_read_for_a_minute_lets_the_sampler_stop(bench: Bench) -> None:
    watch = bench.watch(interval=10)
    assert bench.pass_time(300)[-1] == 70
    assert watch.read() == {}  # a reading from four minutes ago is out of date
    assert bench.pass_time(5) == [300, 300.2]
    assert watch.read() == {LEVEL.name: 10, SHARE.name: 50}


def test_reading_keeps_the_sampler_running(bench: Bench) -> None:
    watch = bench.watch(interval=10)
    for _ in range(10):
        bench.pass_time(40)
        assert watch.read()


def test_a_closed_watch_shows_nothing_and_causes_no_ticks(bench: Bench) -> None:
    watch = bench.watch()
    bench.pass_time(1)
    watch.close()
    assert watch.read() == {}
    assert bench.pass_time(10) == [2]  # the tick that notices


def test_a_run_with_a_long_interval_does_not_slow_down_a_watch(bench: Bench) -> None:
    bench.series(interval=30)
    bench.pass_time(1)
    watch = bench.watch(interval=1)
    assert bench.pass_time(3) == [1, 2, 3, 4]
    assert watch.read() == {LEVEL.name: 10, SHARE.name: 50}


def test_a_run_with_a_short_interval_is_not_read_more_often_for_a_watch(bench: Bench) -> None:
    bench.series(interval=1)
    bench.pass_time(1.5)
    bench.watch(interval=5)
    assert bench.pass_time(2) == [2, 3]


def test_a_watch_adds_no_points_to_a_run(bench: Bench) -> None:
    series = bench.series(interval=10)
    bench.pass_time(0)
    bench.watch(interval=1)
    bench.pass_time(10)
    timestamps = {point.timestamp for point in series.channel.queue.peek(1000).points}
    assert len(timestamps) == 2


def test_readings_from_before_a_pause_do_not_count(bench: Bench) -> None:
    before = bench.watch()
    bench.pass_time(2.5)
    before.close()
    bench.pass_time(10)
    assert bench.sampler.readings == 0
    bench.watch()
    assert bench.sampler.readings == 0
    bench.pass_time(0.5)
    assert bench.sampler.readings == 2


def test_a_tick_too_soon_for_rates_hides_none(bench: Bench) -> None:
    watch = bench.watch()
    bench.pass_time(1.05)
    bench.collector.values = {LEVEL: 20}
    bench.series(interval=1)  # its first tick is its own
    bench.sampler.run_due()
    assert watch.read() == {LEVEL.name: 20, SHARE.name: 50}
    bench.pass_time(1)
    assert watch.read() == {LEVEL.name: 20}  # SHARE is gone from the source
