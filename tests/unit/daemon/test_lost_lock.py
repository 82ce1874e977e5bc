"""A journal whose lock was deleted or lost: who owns it, and how the owner retakes the lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes import FakeClock
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.lines import Header, dump
from mlflow_sysmetrics.daemon.journal.ownership import Ownership, hostname, lock_path
from mlflow_sysmetrics.daemon.journal.spool import claim, is_owned, journals

POINT = {"key": 1.0}
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file and has no such ids")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away"
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    made = Journal.create(tmp_path, 1_000_000, monotonic=clock.monotonic)
    yield made
    made.close(delete=True)


def unlocked(directory: Path, pid: int, began: float, *, host: str | None = None) -> Path:
    """Leaves a journal without a lock, begun by a process at a time in seconds since 1970."""
    path = directory / f"{host or hostname()}-{pid}-0123abcd.jsonl"
    path.write_bytes(dump(Header(host or hostname(), pid, int(began * 1000))))
    return path


def ended_process() -> int:
    """Returns the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def claims(path: Path) -> bool:
    """Returns whether a journal can be claimed, and releases it."""
    claimed = claim(path)
    if claimed is not None:
        claimed.close(delete=False)
    return claimed is not None


@needs_posix
def test_a_living_process_owns_its_journal_without_a_lock(journal: Journal) -> None:
    lock_path(journal.path).unlink()
    assert is_owned(journal.path)
    assert not claims(journal.path)


def test_an_ended_process_does_not(tmp_path: Path) -> None:
    path = unlocked(tmp_path, ended_process(), time.time())
    assert not is_owned(path)
    assert claims(path)


def test_a_process_younger_than_the_journal_only_reuses_the_id(tmp_path: Path) -> None:
    path = unlocked(tmp_path, os.getppid(), psutil.Process(os.getppid()).create_time() - 3)
    assert not is_owned(path)
    assert claims(path)


def test_a_living_process_owns_its_journal_although_its_lock_can_be_taken(tmp_path: Path) -> None:
    """Its descriptors were closed; it retakes the lock at a later point."""
    path = unlocked(tmp_path, os.getppid(), time.time())
    lock_path(path).touch()
    assert is_owned(path)
    assert not claims(path)


@needs_posix
def test_this_process_owns_a_journal_whose_lock_was_closed(journal: Journal) -> None:
    number = journal._ownership._descriptor
    assert number is not None
    with open(os.devnull) as theirs:
        os.dup2(theirs.fileno(), number)
    assert is_owned(journal.path)
    assert not claims(journal.path)
    os.close(number)


def test_this_process_does_not_own_what_it_has_released(tmp_path: Path) -> None:
    path = unlocked(tmp_path, os.getpid(), time.time())
    assert not is_owned(path)
    assert claims(path)


def test_with_a_torn_first_line_the_name_identifies_the_writer(tmp_path: Path) -> None:
    path = unlocked(tmp_path, os.getppid(), 0)
    path.write_bytes(b'{"journal":1,"host"')
    assert is_owned(path)


@needs_posix
def test_an_owner_retakes_a_deleted_lock(journal: Journal, clock: FakeClock) -> None:
    run = journal.register("run", "http://x", None)
    lock_path(journal.path).unlink()
    clock.move(10)
    assert journal.append(run, 0, 0, POINT) is not None
    assert lock_path(journal.path).exists()
    assert Ownership.acquire(journal.path) is None


@needs_posix
def test_an_owner_recreates_a_deleted_directory(journal: Journal, clock: FakeClock) -> None:
    run = journal.register("run", "http://x", None)
    lock_path(journal.path).unlink()
    journal.path.unlink()
    journal.path.parent.rmdir()
    clock.move(10)
    assert journal.append(run, 0, 0, POINT) is not None
    assert Ownership.acquire(journal.path) is None


@needs_posix
def test_a_descriptor_closed_by_others_is_not_closed_again(
    journal: Journal, clock: FakeClock, tmp_path: Path
) -> None:
    """A program that daemonizes closes all descriptors and then opens its own files."""
    run = journal.register("run", "http://x", None)
    number = journal._ownership._descriptor
    assert number is not None
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.dup2(theirs, number)
    clock.move(10)
    assert journal.append(run, 0, 0, POINT) is not None
    assert os.fstat(number).st_ino == os.fstat(theirs).st_ino
    assert Ownership.acquire(journal.path) is None
    os.close(number)
    os.close(theirs)


def test_an_owner_that_cannot_check_its_lock_reports_so(
    journal: Journal, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = journal.register("run", "http://x", None)
    clock.move(10)

    def forbidden(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", forbidden)
        assert journal.append(run, 0, 0, POINT) is None
    assert journal.failed == "Permission denied"
    clock.move(10)
    assert journal.append(run, 1, 0, POINT) is not None
    assert journal.failed is None


@needs_posix
def test_an_owner_that_lost_its_journal_to_another_keeps_points_in_memory(
    journal: Journal, clock: FakeClock
) -> None:
    run = journal.register("run", "http://x", None)
    number = journal._ownership._descriptor
    assert number is not None
    theirs = os.open(os.devnull, os.O_RDONLY)
    os.dup2(theirs, number)
    other = Ownership.acquire(journal.path)
    assert other is not None
    clock.move(10)
    assert journal.append(run, 0, 0, POINT) is None
    assert journal.failed == "another process owns the journal now"
    other.release()
    clock.move(10)
    assert journal.append(run, 1, 0, POINT) is not None
    assert journal.failed is None
    os.close(number)
    os.close(theirs)


@pytest.mark.parametrize(("silent", "claimed"), [(500, False), (700, True)])
def test_a_journal_of_another_host_is_claimed_after_ten_silent_minutes(
    tmp_path: Path, silent: float, *, claimed: bool
) -> None:
    path = unlocked(tmp_path, os.getpid(), time.time(), host="other")
    os.utime(path, (time.time() - silent, time.time() - silent))
    assert is_owned(path) is not claimed
    assert claims(path) is claimed


@needs_root
def test_a_journal_of_another_user_is_not_claimed(tmp_path: Path) -> None:
    path = unlocked(tmp_path, ended_process(), time.time())
    os.chown(path, 12345, -1)
    assert not claims(path)


@needs_posix
def test_our_journals_are_claimed_on_a_mount_that_maps_all_files_to_one_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unlocked(tmp_path, ended_process(), time.time())
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert claims(path)


@needs_posix
def test_a_link_is_not_a_journal(tmp_path: Path) -> None:
    target = tmp_path / "precious.jsonl"
    target.touch()
    path = tmp_path / f"{hostname()}-{ended_process()}-0123abcd.jsonl"
    path.symlink_to(target)
    assert not claims(path)
    assert journals(tmp_path) == []
