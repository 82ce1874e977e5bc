"""Compaction: acknowledged points go first, then the oldest, but never the extremes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal import compaction
from mlflow_sysmetrics.daemon.journal.compaction import extremes
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.scan import scan, unacknowledged
from mlflow_sysmetrics.daemon.journal.spool import claim

SERIES = [f"system/metric_{number}_percentage" for number in range(8)]
BOUND = 50_000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.create(tmp_path / "spool", BOUND)
    yield made
    made.close(delete=True)


def wave(index: int) -> float:
    """Returns a value that oscillates, with one peak that stands out."""
    return 1000.0 if index == 160 else round(math.sin(index) * 50, 3)


def fill(journal: Journal) -> tuple[int, dict[int, Point]]:
    """Appends points until the journal is full; returns the run and its points by index."""
    run = journal.register("run", "http://x", 0)
    points: dict[int, Point] = {}
    while not journal.is_full:
        first = len(points)
        values = {key: wave(first + number) for number, key in enumerate(SERIES)}
        assert journal.append(run, first, first, values) is not None
        points |= {first + place: Point(key, values[key], first) for place, key in enumerate(SERIES)}
    return run, points


def test_acknowledged_points_go_first(journal: Journal) -> None:
    run, points = fill(journal)
    journal.acknowledge(run, 500)
    assert journal.compact() == {}
    assert list(unacknowledged(journal.path, run)) == [pair for pair in points.items() if pair[0] >= 500]


def test_a_run_that_is_over_leaves_no_trace(journal: Journal) -> None:
    run, points = fill(journal)
    journal.acknowledge(run, len(points))
    journal.end(run)
    journal.compact()
    assert scan(journal.path) == []
    assert journal.runs == []


def test_an_attached_run_keeps_its_line(journal: Journal) -> None:
    run, points = fill(journal)
    journal.acknowledge(run, len(points))
    journal.compact()
    assert [(found.run_id, found.acknowledged) for found in scan(journal.path)] == [("run", len(points))]


def test_thinning_ends_under_three_quarters_of_the_bound(journal: Journal) -> None:
    fill(journal)
    journal.compact()
    assert 0.5 * BOUND < journal.size <= 0.75 * BOUND + 100  # the line that counts the dropped points


def test_thinning_keeps_points_unchanged_and_counts_the_others(journal: Journal) -> None:
    run, points = fill(journal)
    dropped = journal.compact()
    left = list(unacknowledged(journal.path, run))
    assert [index for index, _ in left] == sorted(index for index, _ in left)
    assert all(points[index] == point for index, point in left)
    assert dropped == {run: len(points) - len(left)}
    assert [found.dropped for found in scan(journal.path)] == [len(points) - len(left)]


def test_thinning_takes_the_oldest(journal: Journal) -> None:
    run, points = fill(journal)
    journal.compact()
    left = {index for index, _ in unacknowledged(journal.path, run)}
    gone = set(points) - left
    newest = range(len(points) - len(points) // 8, len(points))
    assert gone
    assert left.issuperset(newest)


def test_thinning_again_and_again_keeps_the_peak(journal: Journal) -> None:
    run, points = fill(journal)
    first = len(points)
    for _ in range(5):
        while not journal.is_full:
            journal.append(run, first, first, dict.fromkeys(SERIES, 0.5))
            first += len(SERIES)
        journal.compact()
    assert max(point.value for _, point in unacknowledged(journal.path, run)) == 1000.0


def test_dropped_points_are_counted_over_several_compactions(journal: Journal) -> None:
    run, points = fill(journal)
    first = len(points)
    dropped = journal.compact()[run]
    while not journal.is_full:
        journal.append(run, first, first, dict.fromkeys(SERIES, 0.5))
        first += len(SERIES)
    dropped += journal.compact()[run]
    assert [(found.dropped, found.appended) for found in scan(journal.path)] == [(dropped, first)]
    assert len(list(unacknowledged(journal.path, run))) == first - dropped


def test_runs_with_too_few_points_to_thin_lose_their_oldest(journal: Journal) -> None:
    runs = []
    while not journal.is_full:
        runs.append(journal.register("run", "http://x", 0))
        journal.append(runs[-1], 0, 0, {"system/a_metric_with_a_rather_long_name_percentage" * 5: 1.0})
    dropped = journal.compact()
    assert sorted(dropped) == runs[: len(dropped)]
    assert journal.size <= 0.75 * BOUND + 5000


def test_points_appended_during_a_compaction_are_kept(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, points = fill(journal)
    journal.acknowledge(run, len(points))
    rewrite = compaction.rewrite

    def meanwhile(*arguments: object, **named: object) -> object:
        found = rewrite(*arguments, **named)  # type: ignore[arg-type]
        journal.append(run, len(points), 5, {"late": 1.0})
        return found

    monkeypatch.setattr(compaction, "rewrite", meanwhile)
    journal.compact()
    assert list(unacknowledged(journal.path, run)) == [(len(points), Point("late", 1.0, 5))]


def test_clearing_during_a_compaction_wins(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    run, points = fill(journal)
    rewrite = compaction.rewrite

    def meanwhile(*arguments: object, **named: object) -> object:
        found = rewrite(*arguments, **named)  # type: ignore[arg-type]
        journal.acknowledge(run, len(points))
        journal.clear()
        return found

    monkeypatch.setattr(compaction, "rewrite", meanwhile)
    assert journal.compact() == {}
    assert journal.size < 500
    assert [path.suffix for path in sorted(journal.path.parent.iterdir())] == [".jsonl", ".lock"]


def test_a_journal_continues_after_compaction(journal: Journal) -> None:
    run, points = fill(journal)
    journal.compact()
    journal.acknowledge(run, len(points))
    place = journal.append(run, len(points), 5, {"late": 1.0})
    assert place is not None
    assert journal.read(run, 0, place, 5)[0] == [(len(points), Point("late", 1.0, 5))]
    journal.close(delete=False)
    orphan = claim(journal.path)
    assert orphan is not None
    assert list(unacknowledged(orphan.path, run)) == [(len(points), Point("late", 1.0, 5))]
    orphan.close(delete=True)


def test_leftovers_of_a_compaction_are_deleted_with_the_journal(journal: Journal) -> None:
    journal.path.with_suffix(".new").write_text("half", encoding="utf-8")
    journal.path.with_suffix(".thin").write_text("half", encoding="utf-8")
    journal.close(delete=True)
    assert list(journal.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, 5, 2, 0], {1, 3}),
        ([0, 1, 2, 3], {0, 3}),
        ([2, 9, 1, 5], {1, 2}),
        ([7, 7, 7, 7], {0, 3}),
    ],
)
def test_the_lowest_and_the_highest_of_four_stay(values: list[float], kept: set[int]) -> None:
    assert extremes(values) == kept


@pytest.mark.heavy
@settings(max_examples=200)
@given(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4))
def test_two_of_four_stay_and_they_span_the_same_range(values: list[float]) -> None:
    kept = extremes(values)
    assert len(kept) == 2
    assert {min(values), max(values)} == {values[place] for place in kept}
