"""A journal whose descriptor is closed by others and reused for another file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.open_file import OpenFile
from mlflow_sysmetrics.daemon.journal.scan import scan, unacknowledged

POINT = {"key": 1.0}
PRECIOUS = b"precious\n" * 100
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows deletes and moves no open file")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.create(tmp_path / "spool", 1_000_000)
    yield made
    made.close(delete=True)


@pytest.fixture
def run(journal: Journal) -> int:
    number = journal.register("run", "http://x", None)
    journal.append(number, 0, 0, POINT)
    return number


@pytest.fixture
def steal(journal: Journal, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Closes the journal's descriptor and opens a user's file, which reuses the number."""
    stolen: list[int] = []

    def steal() -> Path:
        file = journal._file._file
        assert file is not None
        path = tmp_path / "checkpoint"
        path.write_bytes(PRECIOUS)
        os.close(file.number)
        stolen.append(os.open(path, os.O_RDWR | os.O_APPEND))
        assert stolen[-1] == file.number
        return path

    yield steal
    for number in stolen:
        os.close(number)  # raises if it was closed already


def waiting(journal: Journal, run: int) -> list[int]:
    return [index for index, _ in unacknowledged(journal.path, run)]


def test_a_point_goes_into_the_journal_not_into_the_file_that_reuses_its_descriptor(
    journal: Journal, run: int, steal: Callable[[], Path]
) -> None:
    users = steal()
    assert journal.append(run, 1, 1, POINT) is not None
    assert users.read_bytes() == PRECIOUS
    assert waiting(journal, run) == [0, 1]


def test_clearing_does_not_empty_the_file_that_reuses_the_descriptor(
    journal: Journal, run: int, steal: Callable[[], Path]
) -> None:
    journal.acknowledge(run, 1)
    size = journal.size
    users = steal()
    assert journal.clear()
    assert journal.path.stat().st_size == journal.size < size
    assert users.read_bytes() == PRECIOUS


def close(journal: Journal) -> None:
    journal.close(delete=False)


@pytest.mark.parametrize("leave", [close, Journal.forget_after_fork])
def test_closing_leaves_the_file_that_reuses_the_descriptor_open(
    leave: Callable[[Journal], object], journal: Journal, steal: Callable[[], Path]
) -> None:
    steal()
    leave(journal)  # the fixture closes the user's file after this


def test_points_are_read_from_the_journal_not_from_the_file_that_reuses_its_descriptor(
    journal: Journal, run: int, steal: Callable[[], Path]
) -> None:
    steal()
    found, _ = journal.read(run, 0, 0, 100)
    assert [index for index, _ in found] == [0]


def test_the_journal_is_compacted_not_the_file_that_reuses_its_descriptor(
    journal: Journal, run: int, steal: Callable[[], Path]
) -> None:
    users = steal()
    journal.compact()
    assert waiting(journal, run) == [0]
    assert users.read_bytes() == PRECIOUS


def test_a_closed_descriptor_is_opened_again(journal: Journal, run: int) -> None:
    file = journal._file._file
    assert file is not None
    os.close(file.number)
    assert journal.append(run, 1, 1, POINT) is not None
    assert waiting(journal, run) == [0, 1]


@needs_posix
def test_a_closed_and_deleted_journal_is_created_again_with_header_and_runs(
    journal: Journal, run: int, steal: Callable[[], Path]
) -> None:
    ended = journal.register("ended", "http://x", None)
    journal.append(ended, 0, 0, POINT)
    journal.end(ended)
    steal()
    journal.path.unlink()
    place = journal.append(run, 1, 1, POINT)
    assert place is not None
    assert {(one.run_id, one.ended) for one in scan(journal.path)} == {("run", False), ("ended", True)}
    found, _ = journal.read(run, 1, place, 100)
    assert [index for index, _ in found] == [1]


def test_a_place_from_before_a_truncation_finds_the_later_points(journal: Journal, run: int) -> None:
    place = journal.append(run, 1, 1, POINT)
    assert place is not None
    journal.path.write_bytes(b"")
    journal.append(run, 2, 2, POINT)
    found, _ = journal.read(run, 1, place, 100)
    assert [index for index, _ in found] == [2]


@needs_posix
@pytest.mark.parametrize("gone", ["moved", "deleted"])
def test_points_are_read_back_from_a_journal_that_is(gone: str, journal: Journal, run: int) -> None:
    if gone == "moved":
        journal.path.parent.rename(journal.path.parent.with_name("elsewhere"))
    else:
        shutil.rmtree(journal.path.parent)
    found, _ = journal.read(run, 0, 0, 100)
    assert [index for index, _ in found] == [0]


def test_a_place_is_valid_after_a_compaction_with_too_many_open_files(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = journal.register("run", "http://x", None)
    for index in range(100):
        journal.append(run, index, index, POINT)
    journal.acknowledge(run, 99)

    def fail(*_: object, **__: object) -> OpenFile:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow_sysmetrics.daemon.journal.file.OpenFile.to_append", fail)
        journal.compact()
    assert journal.size == journal.path.stat().st_size
    place = journal.append(run, 100, 100, POINT)
    assert place is not None
    found, _ = journal.read(run, 100, place, 100)
    assert [index for index, _ in found] == [100]
