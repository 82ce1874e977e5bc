"""Runs of this machine, followed in the journals of their processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.live import local
from mlflow_sysmetrics.live.board import Board
from mlflow_sysmetrics.live.local import LOOK_SECONDS, LocalRuns

CPU = "system/cpu_utilization_percentage"
RUN = "a" * 32


class Bench:
    """A journal of this process, and who watches it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.board = Board("here")
        self.source = LocalRuns(directory)
        self.journal = Journal.create(directory, 1_000_000)
        self.began = time.time_ns() // 1_000_000
        self.number = self.journal.register(RUN, "http://tracking:5000", self.began)
        self.count = 0

    def log(self, points: int) -> None:
        for _ in range(points):
            self.journal.append(
                self.number, self.count, self.began + 1000 * self.count, {CPU: float(self.count)}
            )
            self.count += 1

    def look(self) -> list[float]:
        assert self.source.step(self.board) == LOOK_SECONDS
        run = self.board.runs.get(RUN)
        return [] if run is None else [value for _, value in run.series[CPU].points]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_appended_is_added(bench: Bench) -> None:
    bench.log(3)
    assert bench.look() == [0, 1, 2]
    bench.log(2)
    assert bench.look() == [0, 1, 2, 3, 4]
    run = bench.board.runs[RUN]
    assert (run.status, run.owner, run.started_at) == ("alive", f"process {os.getpid()}", bench.began)


def test_what_was_read_stays_when_the_journal_is_emptied(bench: Bench) -> None:
    bench.log(3)
    bench.look()
    bench.journal.acknowledge_all({bench.number: 3})
    assert bench.journal.clear()
    assert bench.look() == [0, 1, 2]
    bench.log(1)
    assert bench.look() == [0, 1, 2, 3]


def test_a_journal_that_was_emptied_and_has_grown_between_two_looks_is_read_anew(bench: Bench) -> None:
    bench.log(1)
    bench.look()
    bench.journal.acknowledge_all({bench.number: 1})
    assert bench.journal.clear()
    bench.log(50)
    bench.look()
    assert bench.look() == [*range(51)]


def test_a_line_that_is_being_written_waits(bench: Bench) -> None:
    bench.log(2)
    whole = bench.journal.path.read_bytes()
    bench.look()
    with bench.journal.path.open("ab") as file:
        file.write(whole.splitlines()[-1][:20])
    assert bench.look() == [0, 1]


def test_a_long_journal_is_read_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_MOST_BYTES", 2000)
    bench.log(100)
    assert 0 < len(bench.look()) < 100
    for _ in range(10):
        bench.look()
    assert bench.look() == [*range(100)]


def test_a_run_that_is_detached_has_ended(bench: Bench) -> None:
    bench.log(1)
    bench.look()
    bench.journal.end(bench.number)
    bench.look()
    assert bench.board.runs[RUN].status == "ended"
    assert bench.board.runs[RUN].ended_at is not None


@pytest.mark.parametrize(("deleted", "status"), [(True, "ended"), (False, "dead")])
def test_a_process_that_is_gone_has_ended_if_its_points_are_delivered(
    bench: Bench, deleted: bool, status: str
) -> None:
    bench.log(2)
    bench.look()
    bench.journal.close(delete=deleted)
    assert bench.look() == [0, 1]
    assert bench.board.runs[RUN].status == status
    assert bench.look() == [0, 1]


def test_a_journal_of_a_dead_process_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.log(2)
    bench.journal.close(delete=False)
    asked: list[Path] = []
    monkeypatch.setattr(local, "is_owned", lambda path: bool(asked.append(path)))
    for _ in range(5):
        assert bench.look() == []
    assert len(asked) == 1  # its lock is not taken at each look


def test_damage_does_no_harm(bench: Bench) -> None:
    bench.log(2)
    with bench.journal.path.open("ab") as file:
        file.write(b"\0\0\0\n{}\n\xff\n")
    bench.log(1)
    assert bench.look() == [0, 1, 2]


def test_a_directory_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    board = Board("here")
    assert LocalRuns(tmp_path / "no").step(board) == LOOK_SECONDS
    assert (board.runs, board.trouble) == ({}, "")


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(local, "journals", refuse)
    board = Board("here")
    LocalRuns(tmp_path).step(board)
    assert board.trouble == f"{tmp_path}: Permission denied"


def test_thousands_of_looks_keep_nothing_but_the_points(bench: Bench) -> None:
    for _ in range(300):
        bench.log(5)
        bench.source.step(bench.board)
        bench.journal.acknowledge_all({bench.number: bench.count})
        bench.journal.clear()
    assert len(bench.look()) <= 600
    assert len(bench.source._followed) == 1
    assert bench.source._dead == {}
