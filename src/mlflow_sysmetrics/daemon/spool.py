"""The directory of the journals: where it is, what lies in it, and who may take an orphan.

::

    <directory>/<host>-<pid>-<8 random hex>.jsonl    a journal
    <directory>/<host>-<pid>-<8 random hex>.lock     held as long as its process lives
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from mlflow_sysmetrics.daemon.journal import Journal
from mlflow_sysmetrics.daemon.ownership import Ownership, host_of, hostname, lock_path
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_OFF, Settings

OwnedJournal: TypeAlias = Journal  #: one whose owner died, and which is ours now


def spool_directory(settings: Settings) -> Path:
    """Returns the directory of the journals, which need not exist.

    Where journals are switched off it is the default one: older ones may lie there.

    Raises:
        JournalUnavailable: there is no home directory and none is set.
    """
    if settings.spool_dir is not None and settings.spool_dir != SPOOL_OFF:
        return Path(settings.spool_dir).absolute()
    from platformdirs import user_state_dir  # noqa: PLC0415 - needed once, where a directory is asked for

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
        any_host: those of other hosts too. Whether their owners live cannot be known here: a lock on a
            network filesystem is seen by other machines only where its server passes it on.
    """
    try:
        found = sorted(directory.iterdir())
    except OSError:
        return []
    host = hostname()
    return [path for path in found if (owner := host_of(path)) is not None and (any_host or owner == host)]


def is_owned(path: Path) -> bool:
    """Tells whether a journal has an owner that lives; also where we may not try."""
    if not lock_path(path).exists():
        return False
    try:
        ownership = Ownership.take(path)
    except JournalUnavailable:
        return True
    if ownership is None:
        return True
    # A journal that was deleted meanwhile leaves us with a lock file that we have made.
    ownership.let_go(delete=not path.exists())
    return False


def claim(path: Path) -> OwnedJournal | None:
    """Takes over a journal whose owner died, without waiting.

    Returns:
        The journal, to be closed by the caller; None where somebody owns it, it does not exist any more, or
        it cannot be written.
    """
    try:
        ownership = Ownership.take(path)
    except JournalUnavailable:
        return None
    if ownership is None:
        return None
    # Its last owner deletes the journal before it lets go, so this is certain now.
    if not path.exists():
        ownership.let_go(delete=True)
        return None
    try:
        return Journal.open(path, ownership)
    except OSError:
        ownership.let_go()
        return None
