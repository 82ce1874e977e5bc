"""A journal on a failing disk: full, read-only, deleted, absent. The caller sees no exception."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import FakeClock
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.scan import unacknowledged
from mlflow_sysmetrics.daemon.journal.spool import claim, is_owned
from mlflow_sysmetrics.errors import JournalUnavailable

POINT = {"key": 1.0}
as_root = hasattr(os, "geteuid") and os.geteuid() == 0
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file and has other rights")


class Disk:
    """Takes `room` more bytes; with no room at all it raises, as the system call does."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.tries = 0

    def write(self, descriptor: int, text: bytes) -> int:
        self.tries += 1
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, text[: self.room])
        self.room -= written
        return written


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path, disk: Disk, clock: FakeClock) -> Iterator[Journal]:
    made = Journal.create(tmp_path / "spool", 1_000_000, monotonic=clock.monotonic, write=disk.write)
    yield made
    made.close(delete=True)


def test_a_full_disk_takes_no_points_and_is_reported(journal: Journal, disk: Disk) -> None:
    run = journal.register("run", "http://x", None)
    disk.room = 0
    assert journal.append(run, 0, 0, POINT) is None
    assert journal.failed == "No space left on device"


def test_a_failed_disk_is_not_used_for_a_minute(journal: Journal, disk: Disk, clock: FakeClock) -> None:
    run = journal.register("run", "http://x", None)
    disk.room = 0
    for _ in range(5):
        journal.append(run, 0, 0, POINT)
        clock.move(10)
    assert disk.tries == 2  # the header and the first point


def test_a_disk_that_has_room_again_is_used_again(journal: Journal, disk: Disk, clock: FakeClock) -> None:
    run = journal.register("run", "http://x", None)
    disk.room = 0
    journal.append(run, 0, 0, POINT)
    disk.room = 1 << 30
    clock.move(60)
    assert journal.append(run, 1, 5, POINT) is not None
    assert journal.failed is None
    assert list(unacknowledged(journal.path, run)) == [(1, Point("key", 1.0, 5))]


@pytest.mark.parametrize("room", [1, 5, 30, 80, 120])
def test_a_torn_line_damages_no_other(room: int, journal: Journal, disk: Disk, clock: FakeClock) -> None:
    run = journal.register("run", "http://x", None)
    journal.append(run, 0, 0, POINT)
    disk.room = room
    assert journal.append(run, 1, 1, {"k" * 200: 2.0}) is None
    disk.room = 1 << 30
    clock.move(60)
    journal.append(run, 2, 2, POINT)
    assert [index for index, _ in unacknowledged(journal.path, run)] == [0, 2]


@pytest.mark.parametrize("room", [1, 40, 100])
def test_a_torn_run_line_is_written_again(room: int, journal: Journal, disk: Disk, clock: FakeClock) -> None:
    run = journal.register("run", "http://tracking.example.org:5000", None)
    disk.room = room
    journal.append(run, 0, 0, POINT)
    disk.room = 1 << 30
    clock.move(60)
    journal.append(run, 1, 1, POINT)
    assert [index for index, _ in unacknowledged(journal.path, run)] == [1]


def test_run_lines_are_written_again_after_an_unfinished_clearing(
    journal: Journal, disk: Disk, clock: FakeClock
) -> None:
    run = journal.register("run", "http://x", None)
    journal.append(run, 0, 0, POINT)
    journal.acknowledge(run, 1)
    disk.room = 10
    journal.clear()
    disk.room = 1 << 30
    clock.move(60)
    journal.append(run, 1, 1, POINT)
    assert [index for index, _ in unacknowledged(journal.path, run)] == [1]


def test_a_journal_never_grows_over_its_bound(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 2000)
    run = journal.register("run", "http://x", None)
    taken = [journal.append(run, index, index, POINT) for index in range(100)]
    assert journal.size <= 2000
    assert taken[0] is not None
    assert taken[-1] is None
    assert journal.is_full
    journal.close(delete=True)


def test_a_compaction_that_finds_no_room_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, 2000)
    run = journal.register("run", "http://x", None)
    while not journal.is_full:
        journal.append(run, journal.size, 0, POINT)
    before = journal.path.read_bytes()
    journal.path.with_suffix(".new").mkdir()  # stands in for a disk that takes no second file
    assert journal.compact() == {}
    assert journal.path.read_bytes() == before
    journal.close(delete=True)


def test_a_useless_compaction_is_not_repeated_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    journal = Journal.create(tmp_path, 2000, monotonic=clock.monotonic)
    run = journal.register("run", "http://x", None)
    while not journal.is_full:
        journal.append(run, journal.size, 0, POINT)
    journal.path.with_suffix(".new").mkdir()
    journal.compact()
    assert not journal.is_full
    clock.move(60)
    assert journal.is_full
    journal.close(delete=True)


@needs_posix
def test_a_deleted_journal_is_created_again_with_its_contents(journal: Journal) -> None:
    run = journal.register("run", "http://x", None)
    journal.append(run, 0, 0, POINT)
    shutil.rmtree(journal.path.parent)
    assert journal.append(run, 1, 1, POINT) is not None
    assert [index for index, _ in unacknowledged(journal.path, run)] == [0, 1]


@needs_posix
def test_a_journal_that_was_created_again_is_still_owned(journal: Journal) -> None:
    run = journal.register("run", "http://x", None)
    shutil.rmtree(journal.path.parent)
    journal.append(run, 0, 0, POINT)
    assert is_owned(journal.path)
    assert claim(journal.path) is None


@needs_posix
def test_a_journal_that_cannot_be_created_again_reports_why(journal: Journal) -> None:
    run = journal.register("run", "http://x", None)
    shutil.rmtree(journal.path.parent)
    journal.path.parent.write_text("in the way")
    assert journal.append(run, 0, 0, POINT) is None
    assert journal.failed == "File exists"


def test_a_directory_that_is_a_file_holds_no_journal(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    with pytest.raises(JournalUnavailable, match="spool: File exists"):
        Journal.create(tmp_path / "spool", 1_000_000)


def test_a_directory_below_a_file_holds_no_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalUnavailable, match="Not a directory"):
        Journal.create(tmp_path / "file" / "spool", 1_000_000)


@needs_posix
def test_a_directory_without_permission_holds_no_journal(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if as_root:  # root may write everywhere
        os.seteuid(65534)  # the user "nobody"
    try:
        with pytest.raises(JournalUnavailable, match="Permission denied"):
            Journal.create(tmp_path / "spool", 1_000_000)
    finally:
        if as_root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 kB, if the test may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or not as_root:
        pytest.skip("only root may mount a tmpfs")
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield place
    subprocess.run([shutil.which("umount") or "umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_only_the_points_without_room(tmpfs: Path) -> None:
    clock = FakeClock()
    journal = Journal.create(tmpfs / "spool", 1_000_000, monotonic=clock.monotonic)
    run = journal.register("run", "http://x", None)
    taken = [index for index in range(2000) if journal.append(run, index, 0, {"k" * 50: 1.0}) is not None]
    assert 100 < len(taken) < 2000
    assert journal.failed in {"No space left on device", "the disk is full"}
    assert [index for index, _ in unacknowledged(journal.path, run)] == taken
    journal.acknowledge(run, 2000)
    assert journal.clear()  # truncation needs no room
    clock.move(60)
    assert journal.append(run, 2000, 0, POINT) is not None
    assert [index for index, _ in unacknowledged(journal.path, run)] == [2000]
    journal.close(delete=True)


def test_a_real_read_only_disk_holds_no_journal(tmpfs: Path) -> None:
    mount = shutil.which("mount") or "mount"
    subprocess.run([mount, "-o", "remount,ro", str(tmpfs)], check=True)
    with pytest.raises(JournalUnavailable, match="Read-only file system"):
        Journal.create(tmpfs / "spool", 1_000_000)


def test_a_disk_that_becomes_read_only_is_reported(tmpfs: Path) -> None:
    journal = Journal.create(tmpfs / "spool", 1_000_000)
    run = journal.register("run", "http://x", None)
    journal.forget_after_fork()  # the kernel does not remount while a file is open for writing
    mount = shutil.which("mount") or "mount"
    subprocess.run([mount, "-o", "remount,ro", str(tmpfs)], check=True)
    assert claim(journal.path) is None
    assert journal.append(run, 0, 0, POINT) is None
