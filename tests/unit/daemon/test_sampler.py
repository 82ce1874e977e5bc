"""Ticks, windows and points on a clock that the test moves. No threads, no waits."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from fakes import EVENTS, LEVEL, SHARE, STARTED_AT, TOTAL, FakeClock, FakeSink, scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.settings import Settings


class Bench:
    """A sampler whose thread is the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.collector = scripted(level=10, share=50, total=1000, events=3)
        self.sampler = Sampler([Probe(self.collector, Host(), transparent=True)], self.clock)
        self.sender = Sender("uri", lambda _: FakeSink(), self.clock)

    def series(self, run_id: str = "run", *, hours_old: float = 0, **settings: object) -> RunSeries:
        """Attaches a run; its points stay in its queue."""
        chosen = Settings(**{"sampling_interval": 1, "samples_before_logging": 5, **settings})  # type: ignore[arg-type]
        queue = RunQueue(run_id, STARTED_AT - round(hours_old * 3_600_000), 1e3)
        series = RunSeries(("uri", run_id), chosen, Channel(self.sender, queue))
        self.sampler.add(series)
        return series

    def adaptive(self, run_id: str = "run", *, hours_old: float = 0) -> RunSeries:
        """Attaches a run with the default settings."""
        return self.series(run_id, hours_old=hours_old, samples_before_logging=10)

    def pass_time(self, seconds: float) -> None:
        """Does what the sampler's thread would do in that time."""
        ends = self.clock.seconds + seconds
        if self.sampler._requested():
            self.sampler.tick()
        while (due := self.sampler._next_due()) <= ends + 1e-9:
            self.clock.seconds = due
            self.sampler.tick()
        self.clock.seconds = ends

    def set(self, **values: float) -> None:
        metrics = {"level": LEVEL, "share": SHARE, "total": TOTAL, "events": EVENTS}
        self.collector.values.update({metrics[name]: value for name, value in values.items()})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def points_of(series: RunSeries, key: str) -> list[tuple[float, float]]:
    """Returns (seconds since the start, value) of one series."""
    return [
        ((point.timestamp - STARTED_AT) / 1000, point.value)
        for point in series.channel.queue.peek(100_000).points
        if point.key == f"system/{key}"
    ]


def test_a_run_has_points_at_its_attach_in_each_window_and_at_its_end(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(12)
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert points_of(series, LEVEL.name) == [
        (0, 10),
        (5, 10),
        (10, 10),
        (12, 10),
    ]  # the tick of the end is another one
    assert series.ended.is_set()


def test_a_run_says_that_it_is_measured_with_its_first_points(bench: Bench) -> None:
    series = bench.series()
    assert series.channel.queue.tags == {}
    bench.pass_time(0)
    assert series.channel.queue.tags == {"sys.metrics": "on"}


def test_a_run_whose_tags_are_off_says_nothing(bench: Bench) -> None:
    series = bench.series(tags=False)
    bench.pass_time(0)
    assert series.channel.queue.tags == {}


def test_a_run_without_points_does_not_say_that_it_is_measured(bench: Bench) -> None:
    sampler = Sampler([], bench.clock)
    series = bench.series()
    sampler.add(series)
    sampler.tick()
    assert series.channel.queue.tags == {}


def test_the_first_points_say_what_is_missing(bench: Bench) -> None:
    bench.sampler.state = "on, but no answer from gpu (nvidia)"
    series = bench.series()
    bench.pass_time(0)
    assert series.channel.queue.tags == {"sys.metrics": "on, but no answer from gpu (nvidia)"}


def test_the_end_of_a_run_whose_attach_was_interrupted_is_not_waited_for(bench: Bench) -> None:
    series = RunSeries(("uri", "run"), Settings(), Channel(bench.sender, RunQueue("run", STARTED_AT, 1e3)))
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert series.ended.is_set()


def test_the_first_point_has_levels_and_zeros_but_no_rate(bench: Bench) -> None:
    """A rate covers time before the run existed."""
    series = bench.series()
    bench.pass_time(0)
    assert {(point.key, point.value) for point in series.channel.queue.peek(100_000).points} == {
        (f"system/{LEVEL.name}", 10),
        (f"system/{TOTAL.name}", 0),
    }


def test_counters_count_from_the_attach_of_each_run(bench: Bench) -> None:
    first = bench.series("first")
    bench.pass_time(5)
    bench.set(total=1700)
    second = bench.series("second")
    bench.pass_time(5)
    assert points_of(first, TOTAL.name)[-1] == (10, 700)
    assert points_of(second, TOTAL.name)[-1] == (10, 0)


def test_a_counter_continues_after_its_collector_was_rebuilt(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(0)
    for total in (1500, 20, 50):
        bench.set(total=total)
        bench.pass_time(5)
    assert [value for _, value in points_of(series, TOTAL.name)] == [0, 500, 520, 550]


def test_collectors_are_rebuilt_after_a_pause_without_runs(bench: Bench) -> None:
    """Otherwise the first rate of the next run would cover all that time."""
    first = bench.series("first")
    bench.pass_time(5)
    bench.sampler.remove(first)
    bench.pass_time(0.5)
    second = bench.series("second")
    bench.pass_time(5)
    assert bench.collector.built == 1
    bench.sampler.remove(second)
    bench.pass_time(60)
    bench.series("third")
    bench.pass_time(0)
    assert bench.collector.built == 2


def test_a_stalling_source_does_not_distort_the_rates_of_the_next(bench: Bench) -> None:
    """Each collector gets the time at which it reads, not that of the tick."""
    moments = []

    def read(now: float, **_: bool) -> tuple[Sample, ...]:
        moments.append(now)
        bench.clock.move(5)
        return ()

    probes = [Probe(bench.collector, Host()) for _ in range(2)]
    for probe in probes:
        probe.read = read  # type: ignore[method-assign]
    bench.sampler._probes = probes
    bench.series()
    bench.pass_time(0)
    assert moments == [100, 105]


def test_events_have_no_points_until_they_happen_and_count_from_the_attach(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(10)
    assert points_of(series, EVENTS.name) == []
    bench.set(events=5)
    bench.pass_time(15)
    assert points_of(series, EVENTS.name) == [(15, 2)]


def test_events_before_the_attach_do_not_count(bench: Bench) -> None:
    bench.series("first")
    bench.pass_time(5)
    bench.set(events=9)
    second = bench.series("second")
    bench.pass_time(10)
    assert points_of(second, EVENTS.name) == []


def test_a_window_is_the_mean_of_its_ticks(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(0)
    for level in (10, 20, 30, 40, 50):
        bench.set(level=level)
        bench.pass_time(1)
    assert points_of(series, LEVEL.name)[-1] == (5, 30)


def test_an_extra_tick_of_another_run_does_not_bias_the_mean(bench: Bench) -> None:
    series = bench.series("long")
    bench.pass_time(2.5)
    bench.set(level=90)
    for n in range(20):  # twenty short runs at once
        bench.sampler.remove(bench.series(f"short {n}"))
        bench.pass_time(0)
    bench.set(level=10)
    bench.pass_time(2.5)
    value = points_of(series, LEVEL.name)[-1][1]
    assert value == pytest.approx((4.5 * 10 + 0.5 * 90) / 5, abs=0.001)


def test_a_run_that_begins_and_ends_within_one_tick_has_its_levels(bench: Bench) -> None:
    series = bench.series()
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert points_of(series, LEVEL.name) == [(0, 10)]
    assert series.ended.is_set()
    bench.pass_time(60)
    assert len(points_of(series, LEVEL.name)) == 1


def test_a_run_of_fifty_milliseconds_has_a_second_point(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(0.05)
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 0.05]
    assert points_of(series, SHARE.name) == [(0.05, 50)]


def test_runs_share_ticks_whatever_their_number(bench: Bench) -> None:
    for n in range(64):
        bench.series(str(n))
    bench.pass_time(10)
    assert bench.sampler.ticks == 11
    assert len(bench.sampler._windows) == 1


def test_every_run_has_its_own_complete_series(bench: Bench) -> None:
    all_series = []
    for n in range(10):
        all_series.append(bench.series(str(n)))
        bench.pass_time(0.7)
    bench.pass_time(20)
    for series in all_series:
        times = [at for at, _ in points_of(series, LEVEL.name)]
        assert times[1:] == [at for at in (5, 10, 15, 20, 25) if at > times[0]]


def test_runs_keep_their_own_intervals(bench: Bench) -> None:
    slow = bench.series("slow", sampling_interval=2, samples_before_logging=2)
    fast = bench.series("fast", sampling_interval=0.5, samples_before_logging=1)
    bench.pass_time(8)
    assert [at for at, _ in points_of(slow, LEVEL.name)] == [0, 4, 8]
    assert [at for at, _ in points_of(fast, LEVEL.name)] == [n / 2 for n in range(17)]
    bench.sampler.remove(fast)
    ticks = bench.sampler.ticks
    bench.pass_time(8)
    assert bench.sampler.ticks - ticks == 1 + 4


def test_there_is_at_most_one_point_per_run_key_and_timestamp(bench: Bench) -> None:
    all_series = [bench.series("run")]
    for _ in range(30):
        bench.sampler.remove(all_series[-1])
        all_series.append(bench.series("run"))  # resumed before the sampler has seen the end
        bench.pass_time(0)
        bench.pass_time(0.013)
        bench.sampler.flush()
        bench.pass_time(0)
    points = [point for series in all_series for point in series.channel.queue.peek(100_000).points]
    assert max(Counter((point.key, point.timestamp) for point in points).values()) == 1
    assert all(series.ended.is_set() for series in all_series[:-1])


def test_a_flush_takes_along_the_points_that_came_just_before_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a tick that is due at the same moment has just collected points."""
    series, flushes = bench.series(), []
    collect = bench.sampler.inbox.collect

    def collect_and_be_overtaken() -> None:
        collect()
        if not flushes:
            bench.sampler.inbox.put(series.channel, [Point("train/loss", 1.0, STARTED_AT, 1)])
            flushes.append(bench.sampler.flush())

    monkeypatch.setattr(bench.sampler.inbox, "collect", collect_and_be_overtaken)
    bench.sampler.inbox.put(series.channel, [Point("train/loss", 2.0, STARTED_AT, 0)])
    for _ in range(2):
        bench.sampler.tick()
        queued = [point.step for point in series.channel.queue.peek(100).points if point.key == "train/loss"]
        assert queued == [0, 1] or not flushes[0].is_set()
    assert flushes[0].is_set()


def test_a_flush_closes_the_windows_and_the_runs_continue(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(2)
    done = bench.sampler.flush()
    bench.pass_time(0)
    assert done.is_set()
    bench.pass_time(3)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 2, 5]


def test_missed_ticks_are_skipped_and_the_schedule_stays(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(2)
    bench.clock.move(5.3)  # the machine slept
    bench.sampler.tick()
    bench.pass_time(3)
    assert bench.sampler._next_due() == 111
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 7.3, 10]


def test_without_runs_nothing_is_due(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(3)
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert bench.sampler._next_due() == math.inf
    assert not bench.sampler._windows


def test_the_schedule_restarts_after_a_pause(bench: Bench) -> None:
    first = bench.series("first")
    bench.pass_time(1)
    bench.sampler.remove(first)
    bench.pass_time(0)
    bench.clock.move(77.7)
    second = bench.series("second")
    bench.pass_time(5)
    assert [at - 78.7 for at, _ in points_of(second, LEVEL.name)] == pytest.approx([0, 5])


def test_an_interval_that_is_not_exact_in_binary_gives_each_tick_once(bench: Bench) -> None:
    series = bench.series(sampling_interval=0.1, samples_before_logging=1)
    bench.pass_time(100)
    assert bench.sampler.ticks == 1001
    assert len(points_of(series, LEVEL.name)) == 1001


def test_keys_contain_the_node(bench: Bench) -> None:
    series = bench.series(node_id="node_3")
    bench.pass_time(0)
    assert {point.key for point in series.channel.queue.peek(100_000).points} == {
        f"system/node_3/{LEVEL.name}",
        f"system/node_3/{TOTAL.name}",
    }


def test_values_keep_three_decimals(bench: Bench) -> None:
    bench.set(level=1 / 3)
    series = bench.series()
    bench.pass_time(0)
    assert series.channel.queue.peek(100_000).points[0] == Point(f"system/{LEVEL.name}", 0.333, STARTED_AT)


def test_a_metric_that_is_absent_is_absent(bench: Bench) -> None:
    series = bench.series()
    bench.pass_time(5)
    del bench.collector.values[LEVEL]
    bench.pass_time(10)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 5]
    assert [at for at, _ in points_of(series, SHARE.name)] == [5, 10, 15]


def test_an_unchanged_series_has_its_last_point_at_the_end(bench: Bench) -> None:
    series = bench.adaptive()
    bench.pass_time(33)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0]
    bench.sampler.remove(series)
    bench.pass_time(0)
    assert points_of(series, LEVEL.name) == [(0, 10), (33, 10)]
    assert points_of(series, SHARE.name) == [(10, 50), (33, 50)]


def test_a_run_that_ends_just_when_a_window_closes_has_its_last_point(bench: Bench) -> None:
    series = bench.adaptive(hours_old=7)
    bench.pass_time(89)
    bench.sampler.remove(series)
    bench.clock.move(1)
    bench.sampler.tick()
    assert points_of(series, LEVEL.name) == [(0, 10), (60, 10), (90, 10)]
    assert series.ended.is_set()


def test_a_flush_queues_what_was_held_back(bench: Bench) -> None:
    series = bench.adaptive(hours_old=7)
    bench.pass_time(75)
    bench.sampler.flush()
    bench.pass_time(0)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 60, 75]


def test_runs_of_any_age_share_ticks_and_windows(bench: Bench) -> None:
    ages = {str(hours): bench.adaptive(str(hours), hours_old=hours) for hours in (0, 2, 7)}
    for number in range(180):
        bench.set(level=10 + number % 7 / 100, total=1000 + number)
        bench.pass_time(1)
        assert len(bench.sampler._windows) == 1
    assert bench.sampler.ticks == 181
    times = {age: [round(at) for at, _ in points_of(series, TOTAL.name)] for age, series in ages.items()}
    assert times["0"] == [*range(0, 190, 10)]
    assert times["2"] == [*range(0, 70, 10), 90, 120, 150, 180]
    assert times["7"] == [*range(0, 70, 10), 120, 180]


def test_a_resumed_run_begins_with_a_point_of_every_series(bench: Bench) -> None:
    first = bench.adaptive()
    bench.pass_time(25)
    bench.sampler.remove(first)
    bench.pass_time(0)
    second = bench.adaptive()
    bench.pass_time(10)
    assert [at for at, _ in points_of(second, LEVEL.name)] == [25.001]
    assert [at for at, _ in points_of(second, SHARE.name)] == [35]


def test_a_constant_resolution_sends_each_window(bench: Bench) -> None:
    series = bench.series(samples_before_logging=10, resolution="constant", hours_old=7)
    bench.pass_time(120)
    assert [at for at, _ in points_of(series, LEVEL.name)] == [*range(0, 130, 10)]


def test_points_that_could_not_be_queued_are_queued_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = bench.adaptive()
    bench.pass_time(0)
    bench.set(level=20)
    bench.pass_time(9)

    def fail(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(series.channel, "put", fail)
        bench.clock.move(1)
        with pytest.raises(MemoryError):
            bench.sampler.tick()
    bench.sampler.tick()
    assert [at for at, _ in points_of(series, LEVEL.name)] == [0, 10]
