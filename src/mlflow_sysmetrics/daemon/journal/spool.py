"""The directory of the journals: where it is, what lies in it, and who may take an orphan.

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

# Whether an owner on another machine lives cannot be known here: a lock on a network filesystem is seen only
# where its server passes it on. One that has a run writes every few seconds, by default, and its clock may be
# some minutes off.
_QUIET_SECONDS = 600.0

OwnedJournal: TypeAlias = Journal  #: one whose owner died, and which is ours now


def spool_directory(settings: Settings) -> Path:
    """Returns the directory of the journals, which need not exist.

    Where journals are switched off it is the default one: older ones may lie there.

    Raises:
        JournalUnavailable: there is no home directory and none is set.
    """
    if settings.spool_dir is not None and settings.spool_dir != SPOOL_OFF:
        return Path(settings.spool_dir).absolute()
    from platformdirs import user_state_dir

    try:
        directory = Path(user_state_dir("mlflow-sysmetrics", appauthor=False))
    except RuntimeError:  # platformdirs 4.14, of a user without a home, as containers have them
        directory = Path("~")
    if not directory.is_absolute():  # older ones leave it to us
        raise JournalUnavailable("this user has no home directory; set MLFLOW_SYSMETRICS_SPOOL_DIR")
    return directory


def journals(directory: Path, *, any_host: bool = False) -> list[Path]:
    """Returns the journals of this host, oldest names first; none where there is no such directory.

    Args:
        directory: where to look.
        any_host: those of other hosts too.
    """
    try:
        found = sorted(directory.iterdir())
    except OSError:
        return []
    host = hostname()
    return [
        path
        for path in found
        if (owner := host_of(path)) is not None and (any_host or owner == host) and _is_file(path)
    ]


def is_owned(path: Path) -> bool:
    """Tells whether a journal has an owner that lives; also where we may not try, or cannot be sure."""
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
    # A journal that was deleted meanwhile leaves us with a lock file that we have made.
    ownership.release(delete=not path.exists())
    return False


def claim(path: Path) -> OwnedJournal | None:
    """Takes over a journal of this user whose owner died, without waiting.

    Returns:
        The journal, to be closed by the caller; None where somebody owns it or may do so, it does not exist
        any more, is another user's or no file, or cannot be written.
    """
    if not _is_file(path) or foreign_owner(path) is not None or _may_be_owned(path):
        return None
    try:
        ownership = Ownership.acquire(path)
    except JournalUnavailable:
        return None
    if ownership is None:
        return None
    # Its last owner deletes the journal before it lets go, so this is certain now.
    if not path.exists():
        ownership.release(delete=True)
        return None
    try:
        return Journal.open(path, ownership)
    except OSError:
        ownership.release()
        return None


def _may_be_owned(path: Path) -> bool:
    """Tells whether a journal may have an owner although its lock could be taken."""
    if host_of(path) != hostname():
        return _silent_for(path) < _QUIET_SECONDS
    # Somebody may have deleted the lock's file, or closed the owner's descriptors: it takes the lock again.
    return is_held_here(path) or writer_lives(path, pid_of(path))


def _silent_for(path: Path) -> float:
    """Returns the seconds since something was written to a journal."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _is_file(path: Path) -> bool:
    """Tells whether a path is a file, and no link: who may write to the directory may point it anywhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
