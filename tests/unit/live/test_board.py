"""What is kept of runs: bounded, in order, with the extremes of what is thinned."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from mlflow_sysmetrics.live import board as boards
from mlflow_sysmetrics.live.board import MOST_RUNS, Board, Series, WatchedRun


def test_points_come_in_order_and_once() -> None:
    series = Series()
    assert series.add(10, 1.0)
    assert not series.add(10, 2.0)
    assert not series.add(5, 3.0)
    assert not series.add(20, math.nan)
    series.fill([(5, 3.0), (10, 9.0), (20, math.inf), (7, 1.0)])
    assert series.points == [(5, 3.0), (7, 1.0), (10, 1.0)]


def test_a_long_series_keeps_its_newest_points_and_its_extremes() -> None:
    series = Series()
    for at in range(20_000):
        series.add(at, 1000.0 if at == 3456 else -5.0 if at == 9876 else at % 7)
    assert len(series.points) <= 600
    assert [at for at, _ in series.points[-100:]] == list(range(19_900, 20_000))
    assert max(value for _, value in series.points) == 1000
    assert min(value for _, value in series.points) == -5
    assert [at for at, _ in series.points] == sorted({at for at, _ in series.points})


def test_a_long_history_is_thinned_as_well() -> None:
    series = Series()
    series.fill((at, float(at)) for at in range(10_000))
    assert len(series.points) <= 600


def test_points_at_one_moment_do_not_keep_it_from_being_thinned() -> None:
    series = Series()
    series.fill((at // 2 + at % 2, 1.0) for at in range(5000))
    assert len(series.points) <= 600


def test_only_system_metrics_are_kept_and_not_their_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_MOST_SERIES", 2)
    run = WatchedRun("a")
    assert not run.add("loss", 1, 1.0)
    assert not run.add("system/summary/gpu_hours", 1, 1.0)
    assert [run.add(f"system/{name}", 1, 1.0) for name in "abc"] == [True, True, False]


def test_a_thousand_runs_make_room_for_each_other() -> None:
    board = Board("all")
    kept = board.run("kept")
    for number in range(1000):
        board.run(f"{number}").ended_at = 1
    assert len(board.runs) == MOST_RUNS
    assert board.runs["kept"] is kept


def test_an_hour_of_points_takes_no_more_memory_than_ten_minutes() -> None:
    run = WatchedRun("a")
    keys = [f"system/gpu_{number}_utilization_percentage" for number in range(2)]

    def pass_time(begin: int, seconds: int) -> None:
        for at in range(begin, begin + seconds):
            for key in keys:
                run.add(key, at, float(at % 100))

    pass_time(0, 1500)  # a thousand points and more: it has been thinned
    tracemalloc.start()
    try:
        pass_time(1500, 600)
        before = tracemalloc.get_traced_memory()[0]
        pass_time(2100, 3600)
        assert tracemalloc.get_traced_memory()[0] <= before + 100_000
    finally:
        tracemalloc.stop()
    assert sum(len(run.series[key].points) for key in keys) <= 2 * 600


def test_trouble_has_a_beginning_and_an_end() -> None:
    board = Board("all")
    board.report("away")
    since = board.trouble_since
    board.report("still away")
    assert (board.trouble, board.trouble_since, board.changes) == ("still away", since, 2)
    board.report("")
    assert (board.trouble, board.changes) == ("", 3)
