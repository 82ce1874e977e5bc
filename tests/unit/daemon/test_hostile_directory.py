"""A directory of journals in which another user plants files: nothing of this user is written or emptied."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dead_processes import RecoveringProcess, die

from mlflow_sysmetrics.cli.spooled_journals import notes, read_journals
from mlflow_sysmetrics.daemon.journal import compaction, set_aside, spool
from mlflow_sysmetrics.daemon.journal.file import LineFile
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.open_file import open_to_read
from mlflow_sysmetrics.daemon.journal.ownership import Ownership, exposure, lock_path
from mlflow_sysmetrics.errors import JournalUnavailable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links, modes and owners")
as_root = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not as_root, reason="only root may give files to another user")
NOBODY = 65534
NOT_OURS = "regular file|hard link|symbolic links|Is a directory"

Plant = Callable[[Path, Path], None]
LINKS: list[Plant] = [
    lambda path, victim: path.symlink_to(victim),
    lambda path, victim: os.link(victim, path),
]
OTHERS: list[Plant] = [
    lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    lambda path, victim: os.mkfifo(path),
    lambda path, victim: path.mkdir(),
    lambda path, victim: path.symlink_to("/dev/zero"),
]
PLANTED = [*LINKS, *OTHERS]
PLANTED_NAMES = ["link", "hard_link", "dangling_link", "fifo", "directory", "link_to_device"]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of this user, outside the directory of journals."""
    path = tmp_path / "precious"
    path.write_text("precious\n")
    path.chmod(0o640)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir()
    return path


def untouched(victim: Path) -> bool:
    return victim.read_text() == "precious\n" and stat.S_IMODE(victim.stat().st_mode) == 0o640


@pytest.mark.parametrize("plant", PLANTED, ids=PLANTED_NAMES)
def test_a_planted_lock_is_not_opened(plant: Plant, directory: Path, victim: Path) -> None:
    path = die(directory)
    lock_path(path).unlink(missing_ok=True)
    plant(lock_path(path), victim)
    assert spool.is_owned(path)
    assert spool.claim(path) is None
    with pytest.raises(JournalUnavailable, match=r"is not a lock: it is (not a regular file|a hard link)"):
        Ownership.acquire(path)
    assert untouched(victim)
    (found,) = read_journals(directory)
    assert (found.waiting, str(found.fault).partition(":")[0]) == (30, "its owner is not known")


@pytest.mark.parametrize("plant", PLANTED, ids=PLANTED_NAMES)
def test_a_planted_journal_is_neither_read_nor_written(plant: Plant, directory: Path, victim: Path) -> None:
    path = die(directory)
    path.unlink()
    plant(path, victim)
    assert spool.claim(path) is None
    with pytest.raises(OSError, match=NOT_OURS):
        open_to_read(path)
    with pytest.raises(OSError, match=NOT_OURS):
        LineFile(path).open()
    RecoveringProcess(directory).recover()
    assert untouched(victim)
    assert os.path.lexists(path)


@pytest.mark.parametrize("plant", PLANTED, ids=PLANTED_NAMES)
def test_a_journal_that_is_swapped_after_the_check_is_not_opened(
    plant: Plant, directory: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = die(directory)
    acquire = Ownership.acquire

    def swap(journal: Path) -> Ownership | None:
        path.unlink()
        plant(path, victim)
        return acquire(journal)

    monkeypatch.setattr(Ownership, "acquire", swap)
    assert spool.claim(path) is None
    assert untouched(victim)


def test_the_commands_say_what_has_the_name_of_a_journal(directory: Path, victim: Path) -> None:
    path = die(directory)
    path.unlink()
    path.symlink_to(victim)
    journals = list(read_journals(directory))
    assert journals == []
    assert notes(directory, journals, any_host=False).remarks == (
        f"Left alone: {path} is not a regular file.",
    )


def test_one_journal_that_cannot_be_read_does_not_hide_the_others(directory: Path, victim: Path) -> None:
    linked, path = die(directory), die(directory)
    linked.unlink()
    os.link(victim, linked)
    found = {one.path: (one.fault, one.waiting) for one in read_journals(directory)}
    assert found == {linked: ("it cannot be read: it is a hard link to another file", 0), path: (None, 30)}


def test_a_directory_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(directory))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(JournalUnavailable, match="Permission denied"):
        list(read_journals(directory))


@pytest.mark.parametrize("moment", ["rewrite", "swap"])
@pytest.mark.parametrize("suffix", [".new", ".thin"])
def test_a_link_in_the_place_of_a_new_file_is_not_written(
    suffix: str, moment: str, directory: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.create(directory, 10_000)
    run = journal.register("run", "http://x", 0)
    index = 0
    while not journal.is_full:
        journal.append(run, index, index, {f"key{n}": index * 1.1 for n in range(5)})
        index += 5
    new = journal.path.with_suffix(suffix)

    def plant() -> None:
        new.unlink(missing_ok=True)
        new.symlink_to(victim)

    target, name = (compaction, "thin") if moment == "rewrite" else (Journal, "swap")
    original = getattr(target, name)

    def planting(*arguments: object) -> object:
        plant()
        return original(*arguments)

    monkeypatch.setattr(target, name, planting)
    journal.compact()
    journal.append(run, index, index, {"key": 1.0})
    assert untouched(victim)
    journal.close(delete=True)
    assert untouched(victim)


def test_a_link_in_the_place_of_a_journal_that_is_set_aside_is_not_written(
    directory: Path, victim: Path
) -> None:
    path = die(directory)
    path.write_bytes(path.read_bytes() + b"damage\n")
    path.with_suffix(".damaged").symlink_to(victim)
    RecoveringProcess(directory).recover()
    assert path.with_suffix(".1.damaged").exists()
    assert untouched(victim)


def test_an_expired_link_is_not_followed(directory: Path, victim: Path) -> None:
    link = directory / f"{spool.hostname()}-1-0123abcd.damaged"
    link.symlink_to(victim)
    os.utime(link, (0, 0), follow_symlinks=False)
    set_aside.delete_expired(directory)
    assert untouched(victim)
    assert link.is_symlink()


@needs_root
def test_root_takes_no_lock_of_another_user(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = die(directory)
    lock_path(path).write_text("contents")
    for one in (directory, path, lock_path(path)):
        os.chown(one, NOBODY, NOBODY)
    monkeypatch.setattr(Ownership, "acquire", lambda _: pytest.fail("a lock of another user was opened"))
    (found,) = read_journals(directory)
    assert (found.user, found.waiting, found.orphaned) == (NOBODY, 30, False)
    assert spool.claim(path) is None
    assert lock_path(path).read_text() == "contents"


@needs_root
def test_a_lock_of_another_user_beside_a_journal_of_ours_is_not_opened(directory: Path) -> None:
    path = die(directory)
    lock_path(path).write_text("contents")
    os.chown(lock_path(path), NOBODY, NOBODY)
    assert spool.claim(path) is None
    assert lock_path(path).read_text() == "contents"


@needs_root
def test_a_journal_that_another_user_has_replaced_takes_no_points(directory: Path) -> None:
    journal = Journal.create(directory, 10_000)
    run = journal.register("run", "http://x", 0)
    assert journal.append(run, 0, 0, {"key": 1.0}) is not None
    journal.path.unlink()
    journal.path.write_text("theirs\n")
    os.chown(journal.path, NOBODY, NOBODY)
    assert journal._file._file is not None
    os.close(journal._file._file.number)
    assert journal.append(run, 1, 1, {"key": 2.0}) is None
    assert journal.failed == f"the journal was replaced by a file of user {NOBODY}"
    assert journal.path.read_text() == "theirs\n"


@needs_root
def test_another_users_directory_is_reported(directory: Path) -> None:
    os.chown(directory, NOBODY, NOBODY)
    assert exposure(directory) == f"{directory} belongs to user {NOBODY}"


@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o700, False), (0o755, False), (0o777, True), (0o1777, False), (0o707, True)]
)
def test_a_directory_that_others_may_write_to_is_reported(mode: int, exposed: bool, directory: Path) -> None:
    directory.chmod(mode)
    assert exposure(directory) == (f"{directory} has mode {mode:04o}" if exposed else None)
    assert any("other users" in one for one in notes(directory, [], any_host=False).remarks) == exposed


@needs_root
def test_a_directory_that_a_project_shares_is_no_reason_for_a_warning(directory: Path) -> None:
    os.chown(directory, -1, NOBODY)
    directory.chmod(0o2770)
    assert exposure(directory) == f"{directory} has mode 2770"
    assert exposure(directory, ignore_group=True) is None


def test_a_link_to_a_directory_is_the_users_choice(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    path = die(link)
    claimed = spool.claim(path)
    assert claimed is not None
    claimed.close(delete=True)
    assert list(directory.iterdir()) == []


def test_a_name_with_control_characters_is_not_a_journal(directory: Path) -> None:
    (directory / f"{spool.hostname()}\x1b[2J-1-0123abcd.jsonl").write_text("x\n")
    assert spool.journals(directory, any_host=True) == []
