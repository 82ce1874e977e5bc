"""Who owns a journal: its name says who made it, a lock beside it dies with the process that has it now."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.errors import JournalUnavailable

if TYPE_CHECKING:
    from filelock import BaseFileLock
import tempfile

from mlflow_sysmetrics.daemon.journal.lines import Header, lines, parse

# FOLDED writer: The process that wrote a journal: whether it still lives, as far as its id and its age tell.
# FOLDED
# FOLDED  The lock beside the journal alone does not tell: some people and programs that clean directories delete it,
# FOLDED  and whoever closes all descriptors of a process, to make a daemon of it, unlocks it.

_MILLISECONDS = 1000
# Start times are counted from the boot in hundredths of a second, and the boot's own time moves when the
# clock is set. No more than a little: the first process of a container that is started again has its
# predecessor's id and host name, and would be taken for it as long as it lives.
_TOLERANCE_SECONDS = 2.0


def writer_lives(journal: Path, pid: int) -> bool:
    """Tells whether another process that began a journal on this machine is still there.

    Args:
        journal: its file.
        pid: what the file's name says, for a first line that cannot be read.
    """
    began = _modified(journal)
    if began is None:
        return False
    header = _header(journal)
    if header is not None:
        pid, began = header.pid, header.began / _MILLISECONDS
    # This process knows what it owns, see `ownership`: what else it began it has let go of, or was another
    # program's until that called exec.
    if pid <= 0 or pid == os.getpid():
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        # Another process that has got its id, after a reboot or in a restarted container, is younger.
        return (
            process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= began + _TOLERANCE_SECONDS
        )
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True  # it is there, and does not let us look


def foreign_owner(journal: Path) -> int | None:
    """Returns the id of the other user whose journal this is; None where it is ours, or nobody can tell."""
    if not hasattr(os, "geteuid"):
        return None
    try:
        user = journal.lstat().st_uid
        # On some mounts (NFS with root squashed, SMB, FUSE) whatever we make belongs to somebody else.
        if user == os.geteuid() or user == _user_of_a_new_file(journal.parent):
            return None
    except OSError:
        return None
    return user


def _user_of_a_new_file(directory: Path) -> int | None:
    try:
        with tempfile.TemporaryFile(dir=directory) as made:
            return os.fstat(made.fileno()).st_uid
    except OSError:
        return None


def _modified(journal: Path) -> float | None:
    try:
        return journal.stat().st_mtime
    except OSError:
        return None


def _header(journal: Path) -> Header | None:
    try:
        with journal.open("rb") as file:
            first = parse(next(lines(file), b""))
    except OSError:
        return None
    return first if isinstance(first, Header) else None


LOCK_SUFFIX = ".lock"
_OWN_EYES_ONLY = 0o600
_NAME = re.compile(r"(?P<host>.+)-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.jsonl")
_CHECK_SECONDS = (
    10.0  # a default window; a check is two system calls, and a lost lock is seldom asked for at once
)


# Those of this process, until it lets go of them: also one whose lock is lost.
_held: set[Ownership] = set()


def hostname() -> str:
    """Returns this machine's name, as it stands in the names of journals."""
    return re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "localhost"


def new_path(directory: Path) -> Path:
    """Returns a path for a journal of this process that nothing else has."""
    return directory / f"{hostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def host_of(journal: Path) -> str | None:
    """Returns the name of the machine that made a journal; None for a file that is no journal."""
    found = _NAME.fullmatch(journal.name)
    return found["host"] if found else None


def pid_of(journal: Path) -> int:
    """Returns the id of the process that made a journal; 0 for a file that is no journal."""
    found = _NAME.fullmatch(journal.name)
    return int(found["pid"]) if found else 0


def lock_path(journal: Path) -> Path:
    """Returns the path of the lock beside a journal."""
    return journal.with_suffix(LOCK_SUFFIX)


def is_held_here(journal: Path) -> bool:
    """Tells whether this process owns a journal, with its lock or without."""
    # By the name, which no other journal has: a directory may be written in two ways.
    return any(ownership.journal.name == journal.name for ownership in list(_held))


class Ownership:
    """Holds the lock of one journal.

    On POSIX it is an flock, which belongs to the open file and not to the process: a forked child shares it,
    and keeps it alive after its parent's death unless it closes its copy.

    Attributes:
        journal: whose lock it is.
        lost: why the lock is not held any more, although nobody let go of it; None while it is.
    """

    def __init__(self, journal: Path, lock: BaseFileLock) -> None:
        self.journal = journal
        self._lock = lock
        # filelock has no public name for its descriptor, neither in 3.x nor in 4.x.
        self._descriptor: int | None = getattr(_context(lock), "lock_file_fd", None)
        self._identity = _identity(self._descriptor)
        self.lost: str | None = None
        self._checked_at = -math.inf

    @classmethod
    def acquire(cls, journal: Path) -> Ownership | None:
        """Takes the lock of a journal without waiting; returns None where somebody else holds it.

        Raises:
            JournalUnavailable: the lock cannot be tried.
        """
        from filelock import Timeout

        try:
            lock = _new_lock(lock_path(journal))
            lock.acquire(timeout=0)
        except Timeout:
            return None
        # A filesystem without locks is a NotImplementedError, which is a RuntimeError, to older versions.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise JournalUnavailable(f"no lock in {journal.parent}: {reason}") from error
        ownership = cls(journal, lock)
        _held.add(ownership)
        return ownership

    def check(self, now: float) -> bool:
        """Tells whether the journal is still ours, and takes a lock again that was lost; looks every 10 s.

        People and programs that clean directories delete lock files; a program that makes itself a daemon
        closes all descriptors.

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
        """Takes the lock once more, after somebody has deleted its file.

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
            raise OSError(None, "somebody else owns the journal now")
        _held.discard(again)
        vars(self).update(vars(again))

    def release(self, *, delete: bool = False) -> None:
        """Releases the lock.

        Args:
            delete: deletes the lock's file too, after the journal: whoever gets the lock of a file that was
                deleted in that moment finds no journal, and leaves.
        """
        self._release(delete=delete)
        _held.discard(self)

    def _release(self, *, delete: bool) -> None:
        path = lock_path(self.journal)
        # Of one that was lost, the name may be somebody else's lock by now, and the descriptor's number
        # somebody else's file.
        delete = delete and self.lost is None
        if delete and os.name != "nt":  # Windows deletes no open file
            _delete(path)
        if _identity(self._descriptor) != self._identity:
            self._disown()
        with contextlib.suppress(OSError, RuntimeError):
            self._lock.release(force=True)
        if delete and os.name == "nt":
            _delete(path)

    def forget_after_fork(self) -> None:
        """Closes a forked child's copy of the lock, which stays locked: it is the parent's."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        # filelock 4 has closed it already, in a fork handler of its own; older ones would unlock it when the
        # object is collected.
        self._disown()
        if descriptor is not None and _identity(descriptor) == self._identity:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _is_ours(self) -> bool:
        if self._descriptor is not None and _identity(self._descriptor) != self._identity:
            return False
        # NFS keeps a deleted file that is open, under another name and with its one link.
        return lock_path(self.journal).exists() and _links(self._descriptor) > 0

    def _disown(self) -> None:
        """Makes filelock forget its descriptor, which it would close and unlock."""
        context = _context(self._lock)
        if getattr(context, "lock_file_fd", None) is not None:
            context.lock_file_fd = None


def _new_lock(path: Path) -> BaseFileLock:
    from filelock import FileLock

    # Any thread may let go of what another has taken.
    wanted: dict[str, Any] = {"timeout": 0, "thread_local": False, "mode": _OWN_EYES_ONLY}
    # A lock that is the mere existence of a file would outlive its owner. Before 3.21 there was none, and
    # what 3.13 refuses to make prints a traceback when it is collected.
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:
        wanted["fallback_to_soft"] = False
    return FileLock(path, **wanted)


def _context(lock: BaseFileLock) -> Any:
    return getattr(lock, "_context", None)


def _identity(descriptor: int | None) -> tuple[int, int] | None:
    """Returns what tells an open file from another one that has got its number."""
    if descriptor is None:
        return None
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _links(descriptor: int | None) -> int:
    """Returns how many names an open file has; one where that cannot be known."""
    return 1 if descriptor is None else os.fstat(descriptor).st_nlink


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _forget_parents() -> None:
    for ownership in list(_held):
        ownership.forget_after_fork()


# Of an orphan that is just being read nobody else knows, and only filelock 4 closes a forked child's copies.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parents)
