"""The steps of a run's sampled points: none has two, whatever ends a window."""

from __future__ import annotations

import pytest
from test_sampler import Bench

from fakes import LEVEL, STARTED_AT, TOTAL
from mlflow_sysmetrics.daemon.attachments import Attachments
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries, Steps
from mlflow_sysmetrics.runtime.native import RLock
from mlflow_sysmetrics.settings import Settings

SECOND = 1000
KEY = "uri", "run"


def steps_at(*seconds: float, steps: Steps | None = None, started_at: int | None = STARTED_AT) -> list[int]:
    """Returns the steps of windows that end so many seconds after the start of the run."""
    steps = steps or Steps()
    points = [Point("key", 1.0, steps.place(STARTED_AT + round(one * SECOND), started_at)) for one in seconds]
    return [
        max(point.timestamp - STARTED_AT, 0) // SECOND if point.step is None else point.step
        for point in steps.put_on(points)
    ]


def points_of(series: RunSeries, key: str) -> list[tuple[float, float, int]]:
    """Returns (seconds since the start, value, step as it is sent)."""
    started_at = series.channel.queue.started_at or 0
    return [
        (
            (point.timestamp - STARTED_AT) / SECOND,
            point.value,
            (point.timestamp - started_at) // SECOND if point.step is None else point.step,
        )
        for point in series.channel.queue.peek(100_000).points
        if point.key == f"system/{key}"
    ]


def test_a_step_is_the_whole_seconds_since_the_start() -> None:
    assert steps_at(0, 10.002, 19.998, 30.4) == [0, 10, 19, 30]


def test_a_window_that_ends_in_the_second_of_the_one_before_has_the_next_step() -> None:
    assert steps_at(0, 10, 10.4, 10.7, 20) == [0, 10, 11, 12, 20]


def test_the_window_after_that_may_be_in_its_second() -> None:
    assert steps_at(10, 10.4, 11.2, 12.2, 13.2, 20) == [10, 11, 12, 13, 14, 20]


def test_times_before_the_start_by_a_clock_that_is_behind_are_told_apart() -> None:
    assert steps_at(-21, -11, -1, 9, 19) == [0, 1, 2, 9, 19]


def test_a_clock_that_was_set_back_by_more_than_a_minute_is_believed() -> None:
    assert steps_at(100, 110, 80, 151, 90, 100) == [100, 110, 111, 151, 90, 100]


def test_without_a_known_start_the_time_is_a_second_after_the_window_before() -> None:
    steps = Steps()
    times = [steps.place(STARTED_AT + one, None) - STARTED_AT for one in (0, 50, 10_000, 10_400)]
    assert times == [0, 1000, 10_000, 11_000]
    assert steps_at(11.3, 12, steps=steps) == [12, 13]  # it is known by now


def test_asked_again_it_answers_the_same() -> None:
    steps = Steps()
    assert steps_at(10, 10.4, 10.4, steps=steps) == [10, 11, 11]
    assert steps_at(10.4, steps=steps) == [11]


def test_steps_continue_after_those_of_another_process() -> None:
    steps = Steps()
    steps.continue_from(STARTED_AT + 10_300, 600)
    assert steps_at(10.4, 20, steps=steps) == [11, 20]
    later = Steps()
    later.continue_from(STARTED_AT + 10_300, 700)
    assert steps_at(10.4, 20, steps=later) == [12, 20]


def test_who_asked_hears_how_far_steps_are_ahead_before_the_point_is_made() -> None:
    steps, told = Steps(), list[int]()
    steps.moved = told.append
    steps_at(0, 10, 10.4, 10.7, 20, 30, steps=steps)
    assert told == [600, 1300, 0]


def test_placed_steps_are_forgotten_when_no_point_can_need_them() -> None:
    steps = Steps()
    steps_at(*(one / 100 for one in range(1000)), steps=steps)
    assert len(steps._placed) <= 64


@pytest.mark.parametrize("seconds", [0.05, 5.3, 12.05])
def test_a_run_has_one_point_per_step_and_loses_nothing(seconds: float) -> None:
    bench = Bench()
    series = bench.series()
    bench.pass_time(0)
    bench.pass_time(seconds)
    bench.set(total=1500)
    bench.sampler.remove(series)
    bench.pass_time(0)
    for key in (LEVEL.name, TOTAL.name):
        found = points_of(series, key)
        steps = [step for _, _, step in found]
        assert steps == sorted(set(steps)), key
        assert found[-1][0] == pytest.approx(seconds, abs=0.005), key  # at its true time
    assert points_of(series, TOTAL.name)[-1][1] == 500


def test_held_back_points_have_the_step_of_their_window() -> None:
    bench = Bench()
    series = bench.adaptive()
    bench.pass_time(30.2)
    bench.sampler.flush()
    bench.pass_time(0)
    bench.sampler.flush()
    bench.pass_time(70)
    bench.sampler.remove(series)
    bench.pass_time(0)
    found = points_of(series, LEVEL.name)
    assert len({step for _, _, step in found}) == len(found)
    assert [step for seconds, _, step in found if round(seconds, 1) == 30.2] == [31, 32]


def test_a_run_that_is_resumed_at_once_goes_on_after_its_last_step() -> None:
    bench = Bench()
    attachments = Attachments(bench.sampler, RLock())
    queues: list[RunQueue] = []

    def attach() -> RunSeries:
        queues.append(RunQueue("run", STARTED_AT, 1e3))
        channel = Channel(bench.sender, queues[-1])
        return attachments.hold(KEY, bench, lambda: RunSeries(KEY, Settings(), channel))

    for _ in range(3):
        series = attach()
        bench.pass_time(0.1)
        attachments.release(series, bench)
        bench.pass_time(0.1)
    points = [point for queue in queues for point in queue.peek(100).points]
    steps = [one.step or 0 for one in points if one.key == f"system/{LEVEL.name}"]
    assert steps == [0, 1, 2, 3, 4, 5]


def test_the_steps_of_many_ended_runs_are_forgotten() -> None:
    attachments = Attachments(Bench().sampler, RLock())
    first = attachments.steps_of(("uri", "0"))
    assert attachments.steps_of(("uri", "0")) is first
    for number in range(1, 300):
        attachments.steps_of(("uri", str(number)))
    assert attachments.steps_of(("uri", "0")) is not first


def test_windows_shorter_than_a_second_share_steps() -> None:
    bench = Bench()
    series = bench.series(sampling_interval=0.5, samples_before_logging=1)
    bench.pass_time(3)
    assert [step for _, _, step in points_of(series, LEVEL.name)] == [0, 0, 1, 1, 2, 2, 3]
