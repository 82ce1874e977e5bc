"""The spool directory: where journals are, and which of them may be taken over.

::

    <directory>/<host>-<pid>-<8 random hex>.jsonl    a journal
    <directory>/<host>-<pid>-<8 random hex>.lock     held as long as its process lives
    <directory>/<host>-<pid>-<8 random hex>.damaged  a journal that was partly not understood; see `set_aside`
"""

from __future__ import annotations

import math
import os
import stat
import time
from pathlib import Path
from typing import TypeAlias

from mlflow_sysmetrics.daemon.journal.file import LineFile
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.ownership import (
    Ownership,
    foreign_owner,
    host_of,
    hostname,
    is_held_here,
    lock_path,
    pid_of,
    writer_lives,
)
from mlflow_sysmetrics.daemon.journal.scan import JournalState, state_of
from mlflow_sysmetrics.daemon.journal.thread import why
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.settings import SPOOL_OFF, Settings

# Whether an owner on another machine is alive cannot be known here: a lock on a network filesystem is visible
# only if its server passes it on. A live owner with a run writes every few seconds by default, and its clock
# may be off by some minutes.
_QUIET_SECONDS = 600.0
_NO_BOUND = 1 << 62  # bytes; an orphan does not grow

_logger = Log()

OwnedJournal: TypeAlias = Journal  #: one whose owner died, now owned by this process


def spool_directory(settings: Settings) -> Path:
    """Returns the directory of the journals, which need not exist.

    If journals are switched off it is the default one, since older journals may be there.

    Raises:
        JournalUnavailable: the user has no home directory, and no directory is set.
    """
    if settings.spool_dir is not None and settings.spool_dir != SPOOL_OFF:
        return Path(settings.spool_dir).absolute()
    from platformdirs import user_state_dir

    try:
        directory = Path(user_state_dir("mlflow-sysmetrics", appauthor=False))
    except RuntimeError:  # platformdirs 4.14, for a user without a home directory, as in containers
        directory = Path("~")
    if not directory.is_absolute():  # older versions do not check
        raise JournalUnavailable("this user has no home directory; set MLFLOW_SYSMETRICS_SPOOL_DIR")
    return directory


def spooled_names(directory: Path) -> list[str]:
    """Returns the names of all files in the directory; none if it does not exist.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all that is needed
    except (FileNotFoundError, NotADirectoryError):
        return []


def journals(directory: Path, *, any_host: bool = False) -> list[Path]:
    """Returns the journals of this host, sorted by name; empty if the directory does not exist.

    Args:
        directory: where to look.
        any_host: includes those of other hosts.

    Raises:
        OSError: the directory cannot be read.
    """
    return [path for path in _named_like_journals(directory, any_host=any_host) if _is_file(path)]


def not_files(directory: Path, *, any_host: bool = False) -> list[Path]:
    """Returns what has the name of a journal and is a link, a directory or something else: never touched.

    Raises:
        OSError: the directory cannot be read.
    """
    return [path for path in _named_like_journals(directory, any_host=any_host) if not _is_file(path)]


def _named_like_journals(directory: Path, *, any_host: bool) -> list[Path]:
    try:
        paths = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    host = hostname()
    return [path for path in paths if (owner := host_of(path)) is not None and (any_host or owner == host)]


def is_owned(path: Path) -> bool:
    """Returns whether a journal has a live owner; True also if that cannot be tried or is uncertain.

    The lock of another user is not touched: only the process that wrote the journal is looked up.
    """
    if _may_be_owned(path):
        return True
    if foreign_owner(path) is not None or not os.path.lexists(lock_path(path)):
        return False
    try:
        ownership = Ownership.acquire(path)
    except JournalUnavailable:
        return True
    if ownership is None:
        return True
    # If the journal was deleted meanwhile, the lock file is one that we have just made.
    ownership.release(delete=not os.path.lexists(path))
    return False


def claim(path: Path) -> OwnedJournal | None:
    """Takes over a journal of this user whose owner died, without waiting.

    Returns:
        The journal, to be closed by the caller; None if it has or may have an owner, no longer exists,
        belongs to another user, is not a file of its own, cannot be written, or has a newer format.
    """
    if not _is_file(path) or foreign_owner(path) is not None or _may_be_owned(path):
        return None
    try:
        ownership = Ownership.acquire(path)
    except JournalUnavailable:
        return None
    if ownership is None:
        return None
    # Its last owner deletes the journal before releasing the lock, so the answer is final.
    if not os.path.lexists(path):
        ownership.release(delete=True)
        return None
    try:
        return _open(path, ownership)
    except (OSError, JournalUnavailable) as error:
        ownership.release()
        _logger.info("mlflow-sysmetrics: %s is left alone: %s.", path, why(error))
        return None


def _open(path: Path, ownership: Ownership) -> Journal:
    """Opens a journal whose owner died.

    Raises:
        OSError: it cannot be read or written.
        JournalUnavailable: it belongs to another user, or its format is newer than this version.
    """
    file = LineFile(path)
    file.open()  # before reading, so that later writes of others are noticed
    try:
        found = _read(file)
    except BaseException:
        file.close()
        raise
    return Journal(file, ownership, _NO_BOUND, found)


def _read(file: LineFile) -> JournalState:
    if (user := foreign_owner(file.path, file.status())) is not None:
        raise JournalUnavailable(f"it belongs to user {user}")
    with file.reader() as source:
        found = state_of(source)
    if found.newer is not None:
        raise JournalUnavailable(f"it {found.newer}")
    return found


def _may_be_owned(path: Path) -> bool:
    """Returns whether a journal may have an owner although its lock could be taken."""
    if host_of(path) != hostname():
        return _silent_for(path) < _QUIET_SECONDS
    # Its lock file may have been deleted, or its descriptors closed; the owner will retake the lock.
    return is_held_here(path) or writer_lives(path, pid_of(path))


def _silent_for(path: Path) -> float:
    """Returns the seconds since the last write to a journal."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return math.inf


def _is_file(path: Path) -> bool:
    """Returns whether a path is a regular file. A link may point anywhere, and is refused."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
