"""Makes a journal smaller: writes it again without what is settled, and thinned where that is not enough."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from mlflow_sysmetrics.daemon.journal_lines import DroppedLine, PointsLine, dump, dump_points, lines, parse
from mlflow_sysmetrics.daemon.thinning import thin

TEMPORARY_SUFFIX = ".new"  #: beside the journal, until it takes its place
_SECOND_SUFFIX = ".thin"
_OWN_EYES_ONLY = 0o600
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def rewrite(  # noqa: PLR0913, PLR0917 - the journal is the only caller, and has them all
    old: BinaryIO, end: int, head: bytes, settled: Mapping[int, int], most: int, journal: Path
) -> tuple[Path, dict[int, int]]:
    """Writes a smaller journal beside a journal, line by line.

    Args:
        old: the journal, open for reading; it may grow meanwhile.
        end: where to stop reading it.
        head: what the smaller one begins with: header and runs.
        settled: what is settled of each run that is kept, by its number.
        most: how many bytes it may have; the oldest points are thinned until it has no more.
        journal: where the journal lies.

    Returns:
        The smaller journal, and how many points of each run were dropped.

    Raises:
        OSError: the disk did not take it.
    """
    smaller = journal.with_suffix(TEMPORARY_SUFFIX)
    write_fresh(smaller)
    with smaller.open("ab") as new:
        new.write(head)
        for text in lines(old, end):
            line = parse(text)
            if isinstance(line, PointsLine) and line.run in settled:
                new.write(_waiting(line, settled[line.run]))
    dropped: dict[int, int] = {}
    second = journal.with_suffix(_SECOND_SUFFIX)
    while (surplus := smaller.stat().st_size - most) > 0:
        write_fresh(second)
        lost = thin(smaller, second, surplus)
        os.replace(second, smaller)  # noqa: PTH105 - the same call, by the name that says it
        if not lost:
            break  # nothing but the head is left
        for run, count in lost.items():
            dropped[run] = dropped.get(run, 0) + count
    with smaller.open("ab") as new:
        new.writelines(dump(DroppedLine(run, count)) for run, count in dropped.items())
    return smaller, dropped


def copy_tail(old: BinaryIO, begin: int, end: int, smaller: Path) -> None:
    """Appends to a smaller journal what its journal, open for reading, has got meanwhile.

    Raises:
        OSError: the disk did not take it.
    """
    with smaller.open("ab") as new:
        old.seek(begin)
        for text in lines(old, end - begin):
            new.write(text)


def remove_leftovers(journal: Path) -> None:
    """Deletes what a compaction that did not come to its end has left behind.

    Raises:
        OSError: it cannot be deleted.
    """
    for suffix in (TEMPORARY_SUFFIX, _SECOND_SUFFIX):
        journal.with_suffix(suffix).unlink(missing_ok=True)


def write_fresh(path: Path) -> None:
    """Makes an empty file for this user's eyes only, in place of an older one.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, _OWN_EYES_ONLY))


def _waiting(line: PointsLine, settled: int) -> bytes:
    """Returns what of a line is not settled, as a line, or nothing."""
    gone = max(settled - line.first, 0)
    values = dict(list(line.values.items())[gone:])
    return dump_points(line.run, line.first + gone, line.timestamp, values, line.step) if values else b""
