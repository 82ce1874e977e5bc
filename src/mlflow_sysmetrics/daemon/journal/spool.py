"""The spool directory: where journals are, and which of them may be taken over.

::

    <directory>/<host>-<pid>-<8 random hex>.jsonl    a journal
    <directory>/<host>-<pid>-<8 random hex>.lock     held as long as its process lives
"""

from __future__ import annotations

import math
import stat
import time
from pathlib import Path
from typing import TypeAlias

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
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_OFF, Settings

# Whether an owner on another machine is alive cannot be known here: a lock on a network filesystem is visible
# only if its server passes it on. A live owner with a run writes every few seconds by default, and its clock
# may be off by some minutes.
_QUIET_SECONDS = 600.0

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


def journals(directory: Path, *, any_host: bool = False) -> list[Path]:
    """Returns the journals of this host, sorted by name; empty if the directory does not exist.

    Args:
        directory: where to look.
        any_host: includes those of other hosts.
    """
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return []
    host = hostname()
    return [
        path
        for path in paths
        if (owner := host_of(path)) is not None and (any_host or owner == host) and _is_file(path)
    ]


def is_owned(path: Path) -> bool:
    """Returns whether a journal has a live owner; True also if that cannot be tried or is uncertain."""
    if _may_be_owned(path):
        return True
    if not lock_path(path).exists():
        return False
    try:
        ownership = Ownership.acquire(path)
    except JournalUnavailable:
        return True
    if ownership is None:
        return True
    # If the journal was deleted meanwhile, the lock file is one that we have just made.
    ownership.release(delete=not path.exists())
    return False


def claim(path: Path) -> OwnedJournal | None:
    """Takes over a journal of this user whose owner died, without waiting.

    Returns:
        The journal, to be closed by the caller; None if it has or may have an owner, no longer exists,
        belongs to another user, is not a file, or cannot be written.
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
    if not path.exists():
        ownership.release(delete=True)
        return None
    try:
        return Journal.open(path, ownership)
    except OSError:
        ownership.release()
        return None


def _may_be_owned(path: Path) -> bool:
    """Returns whether a journal may have an owner although its lock could be taken."""
    if host_of(path) != hostname():
        return _silent_for(path) < _QUIET_SECONDS
    # Its lock file may have been deleted, or its descriptors closed; the owner will retake the lock.
    return is_held_here(path) or writer_lives(path, pid_of(path))


def _silent_for(path: Path) -> float:
    """Returns the seconds since the last write to a journal."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _is_file(path: Path) -> bool:
    """Returns whether a path is a regular file. A link may point anywhere, and is refused."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
