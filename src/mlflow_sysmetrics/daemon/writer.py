"""The process that wrote a journal: whether it still lives, as far as its id and its age tell.

The lock beside the journal alone does not tell: some people and programs that clean directories delete it,
and whoever closes all descriptors of a process, to make a daemon of it, unlocks it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mlflow_sysmetrics.daemon.journal_lines import Header, lines, parse

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
    import psutil  # noqa: PLC0415 - only where there are journals of others

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


def stranger(journal: Path) -> int | None:
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
