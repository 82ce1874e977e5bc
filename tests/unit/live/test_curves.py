"""Curves in columns of characters, from points that are not evenly spaced."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.live.curves import columns, drawn

MINUTE = 60_000


def test_a_value_counts_for_the_time_since_the_point_before() -> None:
    points = [(0, 10.0), (20_000, 30.0), (40_000, 50.0)]
    assert columns(points, 0, 40_000, 4) == [30, 30, 50, 50]


def test_a_column_has_the_mean_of_its_time() -> None:
    points = [(0, 0.0), (10_000, 0.0), (20_000, 90.0), (30_000, 90.0)]
    assert columns(points, 0, 30_000, 1) == [pytest.approx(60)]


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    points = [(at, 1.0) for at in range(0, 60_001, 10_000)] + [(600_000, 1.0), (610_000, 1.0)]
    found = columns(points, 0, 610_000, 61)
    assert found[:6] == [1] * 6
    assert found[6:59] == [None] * 53
    assert found[59:] == [1, 1]


def test_a_straight_line_goes_on_for_a_minute_after_its_last_point() -> None:
    points = [(0, 5.0), (MINUTE, 5.0)]
    assert columns(points, 0, 2 * MINUTE, 4) == [5, 5, 5, 5]
    assert columns(points, 0, 8 * MINUTE, 8)[3:] == [None] * 5


def test_what_lies_before_and_after_the_time_shown_is_left_out() -> None:
    points = [(at * 10_000, float(at)) for at in range(100)]
    assert columns(points, 100_000, 120_000, 2) == [11, 12]
    assert columns(points, 2_000_000, 3_000_000, 2) == [None, None]


@pytest.mark.parametrize(("points", "count"), [([], 3), ([(5, 1.0)], 0), ([(1000, 1.0)], 3)])
def test_few_points_and_few_columns(points: list[tuple[int, float]], count: int) -> None:
    assert len(columns(points, 0, 3000, count)) == count


def test_shares_are_drawn_on_their_whole_scale_and_others_on_their_own() -> None:
    values = [0.0, 50.0, None, 100.0]
    assert drawn(values, percent=True, ascii_only=False) == "▁▅ █"
    assert drawn([0.0, 25.0], percent=True, ascii_only=False) == "▁▃"
    assert drawn([0.0, 25.0], percent=False, ascii_only=False) == "▁█"


def test_a_share_above_a_hundred_raises_the_scale() -> None:
    assert drawn([100.0, 800.0], percent=True, ascii_only=False) == "▂█"


def test_zeros_are_a_flat_line() -> None:
    assert drawn([0.0, 0.0], percent=False, ascii_only=False) == "▁▁"


def test_ascii_is_enough_for_a_terminal_without_blocks() -> None:
    assert drawn([0.0, 100.0], percent=True, ascii_only=True).isascii()
