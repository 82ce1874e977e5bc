"""From points to a summary and to curves."""

from __future__ import annotations

import pytest

from made_runs import BEGAN, TAGS, busy, histories, starved
from mlflow_sysmetrics.report.histories import summarise, thinned

CPU = "system/cpu_utilization_percentage"


def at(*points: tuple[float, float]) -> list[tuple[int, float]]:
    return [(BEGAN + int(second * 1000), value) for second, value in points]


def mean_of(*points: tuple[float, float]) -> float:
    found = summarise({CPU: at(*points)}, {}).figures
    return found["cpu_utilization_mean_percentage"]


def test_a_value_counts_for_the_time_since_the_point_before() -> None:
    assert mean_of((0, 0), (10, 100), (60, 50)) == pytest.approx((10 * 100 + 50 * 50) / 61)


def test_a_gap_does_not_count() -> None:
    """Nothing was measured in the hour; the value after it counts for one usual distance."""
    found = summarise({CPU: at((0, 10), (10, 10), (20, 10), (3600, 70), (3610, 70))}, {})
    assert found.nodes[0].whole.seconds == pytest.approx(1 + 20 + 20)
    assert found.figures["cpu_utilization_mean_percentage"] == pytest.approx((21 * 10 + 20 * 70) / 41)


def test_a_series_with_a_point_an_hour_has_no_gaps() -> None:
    found = summarise({CPU: at((0, 10), (3600, 20), (7200, 30))}, {})
    assert found.figures["measured_hours"] == pytest.approx(2, rel=1e-3)


def test_two_points_at_one_moment_count_once() -> None:
    assert mean_of((0, 10), (10, 20), (10, 90), (20, 20)) == pytest.approx((10 + 20 * 20) / 21)


def test_a_run_of_one_point_has_a_summary() -> None:
    found = summarise({CPU: at((0, 40))}, {})
    assert found.figures["cpu_utilization_mean_percentage"] == 40
    assert found.verdicts == ()


def test_series_that_do_not_share_times_are_related_by_time() -> None:
    """The host limits the job while the GPU waits, whatever the times of their points are."""
    found = summarise(
        {
            "system/gpu_0_utilization_percentage": at(*((second, 20.0) for second in range(0, 3600, 60))),
            CPU: at(*((second + 7, 98.0) for second in range(0, 3600, 10))),
        },
        TAGS,
    )
    assert found.nodes[0].whole.host_limited_percentage == pytest.approx(100)
    assert [one.name for one in found.verdicts] == ["input-bound"]


def test_nodes_are_told_apart_and_their_hours_added() -> None:
    found = summarise({**histories(busy, node="0"), **histories(starved, node="rack/1")}, TAGS)
    assert [one.whole.node for one in found.nodes] == ["0", "rack/1"]
    assert found.figures["gpu_hours"] == pytest.approx(2, rel=0.01)
    assert {one.node for one in found.verdicts} == {"rack/1"}


def test_a_summary_of_nothing_is_empty() -> None:
    found = summarise(
        {"system/cpu_utilization_percentage": [], "system/disk_usage_percentage": at((0, 3))}, {}
    )
    assert (found.nodes, found.figures, found.verdicts) == ((), {}, ())


def test_thinning_keeps_the_lowest_and_the_highest_value() -> None:
    points = at(*((second, 50.0) for second in range(100_000)))
    points[12_345] = (points[12_345][0], 99.0)
    points[70_001] = (points[70_001][0], 1.0)
    found = thinned(points, points[0][0], points[-1][0], 500)
    assert len(found) <= 1001
    assert points[12_345] in found
    assert points[70_001] in found
    assert found == sorted(found)


def test_few_points_are_not_thinned() -> None:
    points = at((0, 1), (1, 2), (2, 3))
    assert thinned(points, points[0][0], points[-1][0], 2) == points
