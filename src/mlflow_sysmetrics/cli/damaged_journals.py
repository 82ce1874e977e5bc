"""What commands say about journals that are damaged, cannot be read, or lie where others may write."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_sysmetrics.cli.output import complain, counted, say_wrapped
from mlflow_sysmetrics.cli.spooled_journals import SpooledJournal
from mlflow_sysmetrics.daemon.journal.ownership import exposure
from mlflow_sysmetrics.daemon.journal.scan import Damage, read_state
from mlflow_sysmetrics.daemon.journal.set_aside import DamagedJournal, all_set_aside
from mlflow_sysmetrics.daemon.journal.spool import not_files

_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class Notes:
    """What people should know about a directory of journals besides what waits in it.

    Attributes:
        faults: why journals cannot be delivered at all; a command that meets one exits with status 1.
        remarks: about damaged journals, and others that are left alone.
        set_aside: the journals that were set aside, as JSON.
    """

    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    set_aside: tuple[dict[str, Any], ...]

    def print(self) -> None:
        """Prints them to standard error."""
        for remark in self.remarks:
            say_wrapped(remark, err=True)
        for fault in self.faults:
            complain(fault)


def notes(directory: Path, journals: Sequence[SpooledJournal], *, any_host: bool) -> Notes:
    """Returns what people should know about a directory of journals.

    Args:
        directory: the directory.
        journals: the journals in it.
        any_host: include journals of other hosts.
    """
    aside = [(one, _damage(one.path)) for one in all_set_aside(directory, any_host=any_host)]
    faults = (f"{one.path}: {one.fault}" for one in journals if one.fault is not None and one.user is None)
    documents = (_document(one, damage) for one, damage in aside)
    return Notes(
        tuple(faults), tuple(_remarks(directory, journals, aside, any_host=any_host)), tuple(documents)
    )


def _remarks(
    directory: Path,
    journals: Sequence[SpooledJournal],
    aside: Sequence[tuple[DamagedJournal, Damage | None]],
    *,
    any_host: bool,
) -> Iterator[str]:
    for journal in journals:
        if journal.damage is not None:
            yield f"Damaged: {journal.path}: {journal.damage}; the rest can be sent."
        if journal.fault is not None and journal.user is not None:
            yield f"Left alone: {journal.path} ({journal.owner}): {journal.fault}."
    for one, damage in aside:
        date = time.strftime("%Y-%m-%d", time.localtime(one.kept_until))
        what = f"{damage}" if damage else counted(one.size, "byte")
        yield f"Set aside: {one.path}: {what}; deleted after {date}."
    with contextlib.suppress(OSError):  # whoever reads the journals reports it
        for path in not_files(directory, any_host=any_host):
            yield f"Left alone: {path} is not a regular file."
    if (exposed := exposure(directory)) is not None:
        yield f"Note: other users can replace journals: {exposed}."


def _damage(path: Path) -> Damage | None:
    with contextlib.suppress(OSError):
        return read_state(path).damage
    return None


def _document(one: DamagedJournal, damage: Damage | None) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "bytes": one.size,
        "damaged_lines": damage.lines if damage else None,
        "points_of_unknown_runs": damage.points if damage else None,
        "kept_until": int(one.kept_until * _MILLISECONDS),
        "user": one.user,
    }
