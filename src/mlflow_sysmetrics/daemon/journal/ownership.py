"""Who owns a journal: its name says which process created it, a lock beside it says which one has it now.

The lock dies with its process, but it is not sufficient: people and programs that clean directories delete
lock files, and a program that closes all its descriptors, to daemonize, releases them. So the process that
wrote the journal is looked up as well.

Others may be able to write in the directory. So nothing there is opened before it is known to be a file of
this user with a single name, and no link is followed.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import socket
import stat
import tempfile
from pathlib import Path

from mlflow_sysmetrics.daemon.journal.lines import Header, lines, parse
from mlflow_sysmetrics.daemon.journal.open_file import FileLock, acquire_lock, check_file, open_to_read
from mlflow_sysmetrics.errors import JournalUnavailable

LOCK_SUFFIX = ".lock"
SMALLER_SUFFIX = ".new"  #: of a compacted journal, until it takes the journal's place
THINNED_SUFFIX = ".thin"  #: of a compacted journal while it is thinned
# The characters of `hostname`: others could put control characters into messages.
_NAME = re.compile(r"(?P<host>[A-Za-z0-9_.-]+)-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.jsonl")
_MILLISECONDS = 1000
# A default window. A check is two system calls, and other processes rarely try a lost lock at once.
_CHECK_SECONDS = 10.0
# Journals of this process that it has not released, including those whose lock was lost.
_held: set[Ownership] = set()


def writer_lives(journal: Path, pid: int) -> bool:
    """Returns whether another process that began a journal on this machine is still alive.

    Args:
        journal: the file.
        pid: the process id in the file's name, in case the first line cannot be read.
    """
    began = _modified(journal)
    if began is None:
        return False
    header = _header(journal)
    if header is not None:
        pid, began = header.pid, header.began / _MILLISECONDS
    # This process knows what it owns (see `is_held_here`). Other journals with its id were released, or
    # belong to the program that this process was before it called exec.
    if pid <= 0 or pid == os.getpid():
        return False
    from mlflow_sysmetrics.runtime.process_identity import is_running  # rarely needed

    # A process that was given the same id later, after a reboot or in a restarted container, is younger.
    return is_running(pid, began_before=began)


def foreign_owner(journal: Path, status: os.stat_result | None = None) -> int | None:
    """Returns the user id of a journal that belongs to another user; None if it is ours or cannot be told.

    Args:
        journal: the file, or the lock beside it.
        status: its stat, if it is open.
    """
    if not hasattr(os, "geteuid"):
        return None
    try:
        user = (status or journal.lstat()).st_uid
        # On some mounts (NFS with root squashed, SMB, FUSE) all files we create belong to another user.
        if user == os.geteuid() or user == _user_of_a_new_file(journal.parent):
            return None
    except OSError:
        return None
    return user


def exposure(directory: Path, *, ignore_group: bool = False) -> str | None:
    """Returns why other users can replace files in a directory of journals; None if they cannot.

    Nothing of theirs is read or written because of it, but they can delete points.

    Args:
        directory: the directory.
        ignore_group: trusts a group of this user, as the members of a project do that share a directory.
    """
    if not hasattr(os, "geteuid"):
        return None
    try:
        status = directory.stat()  # of the target of a link, which is this user's choice
        if status.st_uid not in {os.geteuid(), 0} and status.st_uid != _user_of_a_new_file(directory):
            return f"{directory} belongs to user {status.st_uid}"
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    group = mode & stat.S_IWGRP and status.st_gid != os.getegid() and not ignore_group
    exposed = (mode & stat.S_IWOTH or group) and not mode & stat.S_ISVTX
    return f"{directory} has mode {mode:04o}" if exposed else None


def _user_of_a_new_file(directory: Path) -> int | None:
    try:
        with tempfile.TemporaryFile(dir=directory) as made:
            return os.fstat(made.fileno()).st_uid
    except OSError:
        return None


def _modified(journal: Path) -> float | None:
    try:
        return journal.lstat().st_mtime
    except OSError:
        return None


def _header(journal: Path) -> Header | None:
    try:
        with open_to_read(journal) as file:
            first = parse(next(lines(file), b""))
    except OSError:
        return None
    return first if isinstance(first, Header) else None


def hostname() -> str:
    """Returns this machine's name as it appears in the names of journals."""
    return re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "localhost"


def new_path(directory: Path) -> Path:
    """Returns an unused path for a journal of this process."""
    return directory / f"{hostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def host_of(journal: Path) -> str | None:
    """Returns the name of the machine that created a journal; None for other files."""
    match = _NAME.fullmatch(journal.name)
    return match["host"] if match else None


def pid_of(journal: Path) -> int:
    """Returns the id of the process that created a journal; 0 for other files."""
    match = _NAME.fullmatch(journal.name)
    return int(match["pid"]) if match else 0


def lock_path(journal: Path) -> Path:
    """Returns the path of the lock beside a journal."""
    return journal.with_suffix(LOCK_SUFFIX)


def remove_leftovers(journal: Path) -> None:
    """Deletes what an unfinished compaction may have left beside a journal."""
    for suffix in (SMALLER_SUFFIX, THINNED_SUFFIX):
        _delete(journal.with_suffix(suffix))


def is_held_here(journal: Path) -> bool:
    """Returns whether this process owns a journal, with or without its lock."""
    # Compared by the unique file name: a directory may be spelled in two ways.
    return any(ownership.journal.name == journal.name for ownership in list(_held))


class Ownership:
    """The lock of one journal, held.

    On POSIX it is an flock, which belongs to the open file and not to the process: a forked child shares it,
    and keeps it after its parent's death unless it closes its copy.

    Attributes:
        journal: the journal.
        lost: why the lock is no longer held although it was not released; None while it is held.
    """

    def __init__(self, journal: Path, lock: FileLock) -> None:
        self.journal = journal
        self._lock = lock
        self._descriptor = lock.descriptor
        self._identity = _identity(self._descriptor)
        self.lost: str | None = None
        self._checked_at = -math.inf

    @classmethod
    def acquire(cls, journal: Path) -> Ownership | None:
        """Takes the lock of a journal without waiting; returns None if another process holds it.

        Raises:
            JournalUnavailable: the lock cannot be tried.
        """
        path = lock_path(journal)
        try:
            check_lock(path)
            lock = acquire_lock(path)
        # Older versions raise NotImplementedError, a RuntimeError, on a filesystem without locks.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise JournalUnavailable(f"no lock in {journal.parent}: {reason}") from error
        if lock is None:
            return None
        try:
            ownership = cls(journal, lock)
        except BaseException:
            lock.release()
            raise
        _held.add(ownership)
        return ownership

    def check(self, now: float) -> bool:
        """Returns whether the journal is still ours; retakes a lost lock. Checks every 10 s.

        Locks get lost when people or programs clean directories, and when a program that daemonizes closes
        all its descriptors.

        Args:
            now: seconds on a monotonic clock.
        """
        if now - self._checked_at >= _CHECK_SECONDS:
            try:
                if self.lost is not None or not self._is_ours():
                    self.reacquire()
            except OSError as error:
                self.lost = error.strerror or str(error)
            self._checked_at = now
        return self.lost is None

    def reacquire(self) -> None:
        """Takes the lock again after its file was deleted.

        Raises:
            OSError: it cannot be taken.
        """
        self._release(delete=False)
        self.journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            again = Ownership.acquire(self.journal)
        except JournalUnavailable as error:
            raise OSError(None, str(error)) from error
        if again is None:
            raise OSError(None, "another process owns the journal now")
        _held.discard(again)
        vars(self).update(vars(again))

    def release(self, *, delete: bool = False) -> None:
        """Releases the lock.

        Args:
            delete: deletes the lock's file too. The journal must be deleted first: a process that gets the
                lock of a file deleted at this moment then finds no journal, and leaves.
        """
        self._release(delete=delete)
        _held.discard(self)

    def _release(self, *, delete: bool) -> None:
        path = lock_path(self.journal)
        # After a loss, the path may be another process's lock, and the descriptor's number another file.
        delete = delete and self.lost is None
        if delete and os.name != "nt":  # Windows cannot delete an open file
            _delete(path)
        if _identity(self._descriptor) != self._identity:
            self._lock.disown()
        with contextlib.suppress(OSError, RuntimeError):
            self._lock.release()
        if delete and os.name == "nt":
            _delete(path)

    def forget_after_fork(self) -> None:
        """Closes the lock's descriptor in a forked child; the lock stays held by the parent."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        self._lock.disown()
        if descriptor is not None and _identity(descriptor) == self._identity:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _is_ours(self) -> bool:
        if self._descriptor is not None and _identity(self._descriptor) != self._identity:
            return False
        # On NFS an open file that is deleted keeps one link, under another name.
        return lock_path(self.journal).exists() and _links(self._descriptor) > 0


def check_lock(path: Path) -> None:
    """Checks that a lock file is ours, if it exists.

    Raises:
        OSError: it is a link, another file's second name, not a file, or belongs to another user.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    try:
        check_file(status)
    except OSError as error:
        raise OSError(None, f"{path.name} is not a lock: {error.strerror}") from None
    if (user := foreign_owner(path, status)) is not None:
        raise OSError(None, f"{path.name} belongs to user {user}")


def _identity(descriptor: int | None) -> tuple[int, int] | None:
    """Returns device and inode, which distinguish an open file from a later one with the same number."""
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _links(descriptor: int | None) -> int:
    """Returns how many names an open file has; 1 if unknown."""
    return 1 if descriptor is None else os.fstat(descriptor).st_nlink


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _forget_parents() -> None:
    for ownership in list(_held):
        ownership.forget_after_fork()


# Covers orphans that are just being read, which the daemon does not know of.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parents)
