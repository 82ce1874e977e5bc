"""Journals that were partly not understood: kept for a month under another name, for people to look at.

What could be delivered was delivered. The rest may be points that no reader can attribute any more: a disk
flipped a bit, a power failure left zeros, another program wrote there. Nothing in them is deleted unseen.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlflow_sysmetrics.daemon.journal.open_file import OpenFile
from mlflow_sysmetrics.daemon.journal.ownership import foreign_owner, host_of, hostname
from mlflow_sysmetrics.daemon.journal.scan import Damage
from mlflow_sysmetrics.log import Log

SUFFIX = ".damaged"
# A month is enough to bring back a server, or to correct an address. A run that still says RUNNING after it
# has been abandoned.
KEPT_SECONDS = 30 * 86400
_NAME = re.compile(r"(?P<journal>.+?)(?:\.[0-9]{1,4})?\.damaged")

_logger = Log()


class DamagedJournal(NamedTuple):
    """A journal that was set aside.

    Attributes:
        path: its file.
        size: bytes.
        kept_until: seconds since 1970 when it is deleted.
        user: id of the user who owns it; None for the current user.
    """

    path: Path
    size: int
    kept_until: float
    user: int | None


def rename(journal: Path) -> Path:
    """Renames a journal whose lock the caller holds, and returns the new path.

    Raises:
        OSError: it could not be renamed.
    """
    path = _unused(journal)
    journal.rename(path)
    return path


def copy(contents: BinaryIO, journal: Path) -> Path:
    """Copies a journal that stays in use, and returns the path of the copy.

    Args:
        contents: the journal, open for reading.
        journal: its path.

    Raises:
        OSError: the disk does not take it.
    """
    path = _unused(journal)
    new = OpenFile.to_append(path, create=True)
    try:
        contents.seek(0)
        with os.fdopen(os.dup(new.number), "wb") as writer:
            shutil.copyfileobj(contents, writer)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        new.close()
    return path


def log(path: Path, damage: Damage | None) -> None:
    """Logs that a journal was set aside."""
    _logger.warning(
        "mlflow-sysmetrics: A journal is damaged%s; it was set aside as %s, which is deleted after 30 days.",
        f" ({damage})" if damage else "",
        path,
    )


def all_set_aside(directory: Path, *, any_host: bool = False) -> Iterator[DamagedJournal]:
    """Yields the journals of this host that were set aside, by name.

    Args:
        directory: where to look.
        any_host: includes those of other hosts.
    """
    try:
        paths = sorted(directory.iterdir())
    except OSError:  # whoever lists the journals reports it
        return
    for path in paths:
        found = _NAME.fullmatch(path.name)
        host = found and host_of(path.with_name(f"{found['journal']}.jsonl"))
        if host is None or not (any_host or host == hostname()):
            continue
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                until = status.st_mtime + KEPT_SECONDS
                yield DamagedJournal(path, status.st_size, until, foreign_owner(path, status))


def delete_expired(directory: Path, *, any_host: bool = False) -> None:
    """Deletes the journals of this user that were set aside a month ago.

    Args:
        directory: where to look.
        any_host: includes those of other hosts.
    """
    for one in all_set_aside(directory, any_host=any_host):
        if one.user is None and time.time() >= one.kept_until:
            with contextlib.suppress(OSError):
                one.path.unlink()
                _logger.info("mlflow-sysmetrics: %s was set aside a month ago and is deleted.", one.path)


def _unused(journal: Path) -> Path:
    """Returns a name for a journal that is set aside. Only the owner of its lock chooses one."""
    names = (journal.with_suffix(f".{number}{SUFFIX}" if number else SUFFIX) for number in count())
    return next(path for path in names if not os.path.lexists(path))
