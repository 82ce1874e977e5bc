"""The journal: points are written, acknowledged, read back, cleared and recovered."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.lines import dump_points
from mlflow_sysmetrics.daemon.journal.run_journal import FileRunJournal
from mlflow_sysmetrics.daemon.journal.scan import scan, unacknowledged
from mlflow_sysmetrics.daemon.journal.spool import claim

KEYS = [f"system/metric_{number}" for number in range(3)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.create(tmp_path / "spool", 10_000_000)
    yield made
    made.close(delete=True)


def register(journal: Journal, run_id: str = "run") -> int:
    return journal.register(run_id, "http://mlflow:5000", 1000, cgroup="/sys/fs/cgroup/job", oom_kills=1)


def fill(journal: Journal, run: int, count: int, first: int = 0) -> list[tuple[int, Point]]:
    """Appends points of three series and returns them as they should be read back."""
    for index in range(first, first + count, 3):
        assert journal.append(run, index, index * 1000, dict.fromkeys(KEYS, index + 0.5)) is not None
    return [
        (index + number, Point(key, index + 0.5, index * 1000))
        for index in range(first, first + count, 3)
        for number, key in enumerate(KEYS)
    ]


def test_appended_points_wait_for_delivery(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 6)
    assert list(unacknowledged(journal.path, run)) == points


def test_acknowledged_points_no_longer_wait(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 9)
    journal.acknowledge(run, 4)
    assert list(unacknowledged(journal.path, run)) == points[4:]


def test_a_late_acknowledgement_takes_nothing_back(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 9)
    journal.acknowledge(run, 6)
    journal.acknowledge(run, 3)
    assert list(unacknowledged(journal.path, run)) == points[6:]


def test_a_scan_returns_the_runs(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 6)
    journal.acknowledge(run, 2)
    journal.end(run)
    (found,) = scan(journal.path)
    assert found._asdict() == {
        "number": run,
        "run_id": "run",
        "tracking_uri": "http://mlflow:5000",
        "started_at": 1000,
        "cgroup": "/sys/fs/cgroup/job",
        "oom_kills": 1,
        "acknowledged": 2,
        "dropped": 0,
        "ended": True,
        "appended": 6,
        "last_timestamp": 3000,
    }


def test_a_scan_finds_what_the_journal_knows(journal: Journal) -> None:
    for name in "ab":
        run = register(journal, name)
        fill(journal, run, 6)
        journal.acknowledge(run, 3)
    assert journal.runs == scan(journal.path)


def test_runs_do_not_mix(journal: Journal) -> None:
    one, other = register(journal, "one"), register(journal, "other")
    mine = fill(journal, one, 6)
    fill(journal, other, 9)
    journal.acknowledge(other, 9)
    assert list(unacknowledged(journal.path, one)) == mine


def test_a_run_without_points_leaves_no_line(journal: Journal) -> None:
    before = journal.size
    journal.end(register(journal))
    assert journal.size == before
    assert journal.runs == []


def test_every_line_is_json(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 6)
    journal.acknowledge(run, 6)
    journal.end(run)
    found = [json.loads(line) for line in journal.path.read_text(encoding="utf-8").splitlines()]
    assert [next(iter(line)) for line in found] == ["journal", "run", "r", "r", "r", "r"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_user_may_read_it(journal: Journal) -> None:
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in journal.path.parent.iterdir()} == {0o600}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_user_may_read_a_compacted_journal(journal: Journal) -> None:
    fill(journal, register(journal), 3)
    journal.compact()
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_clearing_keeps_attached_runs(journal: Journal) -> None:
    over, attached = register(journal, "over"), register(journal, "attached")
    for run in (over, attached):
        fill(journal, run, 6)
        journal.acknowledge(run, 6)
    journal.end(over)
    assert journal.clear()
    (found,) = scan(journal.path)
    assert (found.run_id, found.acknowledged, found.ended) == ("attached", 6, False)


def test_clearing_keeps_everything_while_a_point_waits(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 6)
    journal.acknowledge(run, 5)
    assert not journal.clear()
    assert list(unacknowledged(journal.path, run)) == points[5:]


def test_a_run_continues_after_clearing(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 6)
    journal.acknowledge(run, 6)
    journal.clear()
    points = fill(journal, run, 3, first=6)
    assert list(unacknowledged(journal.path, run)) == points


def test_clearing_again_writes_nothing(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 3)
    journal.acknowledge(run, 3)
    journal.clear()
    generation = journal.generation
    assert journal.clear()
    assert journal.generation == generation


def test_points_are_read_back_a_part_at_a_time(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 30)
    found: list[tuple[int, Point]] = []
    place = 0
    while part := journal.read(run, len(found), place, 7)[0]:
        assert len(part) <= 7
        place = journal.read(run, len(found), place, 7)[1]
        found += part
    assert found == points


def test_reading_begins_where_a_line_was_appended(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 6)
    place = journal.append(run, 6, 7, {"late": 1.0})
    assert place is not None
    assert journal.read(run, 0, place, 100)[0] == [(6, Point("late", 1.0, 7))]


def test_a_long_line_is_read_whole(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 3)
    assert len(journal.read(run, 0, 0, 1)[0]) == 3


def test_a_place_from_before_a_swap_is_the_beginning(journal: Journal) -> None:
    run = register(journal)
    points = fill(journal, run, 9)
    _, place = journal.read(run, 0, 0, 6)
    journal.acknowledge(run, 3)
    journal.compact()
    assert journal.read(run, 6, place, 100)[0] == points[6:]


def test_a_place_from_before_a_clearing_is_the_beginning(journal: Journal) -> None:
    run = register(journal)
    fill(journal, run, 300)
    _, place = journal.read(run, 0, 0, 300)
    journal.acknowledge(run, 300)
    journal.clear()
    points = fill(journal, run, 3, first=300)
    assert journal.read(run, 300, place, 100)[0] == points


def test_an_orphan_is_recovered_as_it_was(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    run = register(first)
    points = fill(first, run, 9)
    first.acknowledge(run, 2)
    known = first.runs
    first.close(delete=False)
    orphan = claim(first.path)
    assert orphan is not None
    assert orphan.runs == known
    assert orphan.read(run, 2, 0, 100)[0] == points[2:]


def test_an_orphan_takes_acknowledgements(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    run = register(first)
    points = fill(first, run, 9)
    with first.path.open("ab") as file:
        file.write(b'{"r":0,"i":9,"t":9000,"m":{"sys')  # the process died here
    first.close(delete=False)
    orphan = claim(first.path)
    assert orphan is not None
    orphan.acknowledge(run, 6)
    assert list(unacknowledged(orphan.path, run)) == points[6:]


def test_an_orphan_keeps_its_runs_when_it_is_cleared(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    run = register(first)
    fill(first, run, 3)
    first.close(delete=False)
    for _ in range(2):  # the second clearing has no points that would identify the run
        orphan = claim(first.path)
        assert orphan is not None
        orphan.acknowledge(run, 3)
        assert orphan.clear()
        orphan.close(delete=False)
    assert [found.run_id for found in scan(first.path)] == ["run"]


def test_an_orphan_keeps_its_header(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    header = first.path.read_text(encoding="utf-8")
    with first.path.open("a", encoding="utf-8") as file:
        file.write("\n")
    first.close(delete=False)
    orphan = claim(first.path)
    assert orphan is not None
    orphan.clear()
    assert orphan.path.read_text(encoding="utf-8") == header


def test_an_orphan_still_written_by_its_owner_is_not_emptied(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    run = register(first)
    points = fill(first, run, 6)
    first.close(delete=False)
    orphan = claim(first.path)
    assert orphan is not None
    later = dump_points(run, 6, 6000, {"key": 1.0})
    with first.path.open("ab") as file:
        file.write(later)
    orphan.acknowledge(run, len(points))
    assert not orphan.clear()
    orphan.close(delete=True)
    assert later in first.path.read_bytes()


def test_an_orphan_still_written_by_its_owner_is_not_deleted(tmp_path: Path) -> None:
    first = Journal.create(tmp_path, 1_000_000)
    first.close(delete=False)
    orphan = claim(first.path)
    assert orphan is not None
    with first.path.open("ab") as file:
        file.write(dump_points(0, 0, 0, {"key": 1.0}))
    orphan.close(delete=True)
    assert first.path.exists()


def test_closing_deletes_on_request(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 1_000_000)
    journal.close(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_after_closing(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 1_000_000)
    run = register(journal)
    journal.close(delete=True)
    assert journal.append(run, 0, 0, {"key": 1.0}) is None
    journal.acknowledge(run, 1)
    journal.end(run)
    journal.clear()
    journal.compact()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_ten_thousand_runs_in_turn_leave_nothing_behind(journal: Journal) -> None:
    for number in range(10_000):
        run = register(journal, f"run {number}")
        journal.append(run, 0, 0, {"key": 1.0})
        journal.acknowledge(run, 1)
        journal.end(run)
        journal.clear()
    assert journal.runs == []
    assert journal.size < 200


def test_any_number_of_points_of_one_moment_is_read_back(journal: Journal) -> None:
    run = register(journal)
    points = [Point(f"{number:04}" + "\N{EM DASH}" * 246, float(number), 5) for number in range(900)]
    place = FileRunJournal(journal, run).append(0, points)
    assert place is not None
    assert [point for _, point in unacknowledged(journal.path, run)] == points
    assert scan(journal.path)[0].appended == 900
