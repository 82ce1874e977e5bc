"""Makes a journal smaller: rewrites it without acknowledged points, and thins the rest if necessary.

Of four consecutive points of a series the lowest and the highest stay, with their times. So a memory peak or
a network stall is still visible in a curve of half the points, or of a quarter.

Others may be able to write in the directory. So each new file is used by the descriptor that created it, and
never opened by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from mlflow_sysmetrics.daemon.journal.lines import (
    DroppedLine,
    PointsLine,
    dump,
    dump_points,
    lines,
    parse,
    understood,
)
from mlflow_sysmetrics.daemon.journal.open_file import NewFile
from mlflow_sysmetrics.daemon.journal.ownership import SMALLER_SUFFIX, THINNED_SUFFIX, remove_leftovers
from mlflow_sysmetrics.daemon.journal.set_aside import copy, log

_GROUP = 4
# Bounds the memory at 25 MB: this many series may wait for their fourth point. With more, the groups start
# afresh, and some points are not thinned this time.
_MOST_SERIES = 50_000
# A point that stays between two dropped ones needs its own line, which takes back two fifths of what they
# saved (24 series of random values; smooth ones are dropped by whole lines). Thinning is repeated if that was
# not enough.
_YIELD = 0.6


class SmallerJournal(NamedTuple):
    """A smaller journal.

    Attributes:
        file: the file, beside the journal.
        dropped: how many points of each run were dropped.
        damaged: whether there were lines that are not understood, which it lacks.
    """

    file: NewFile
    dropped: dict[int, int]
    damaged: bool


class Snapshot(NamedTuple):
    """A journal at one moment.

    Attributes:
        source: its contents, open for reading; they may grow.
        generation: its number, which changes when its contents are moved.
        end: its size in bytes.
        head: the beginning of a smaller one: header and runs.
        acknowledged: the index below which points are acknowledged, by number of the runs that are kept.
    """

    source: BinaryIO
    generation: int
    end: int
    head: bytes
    acknowledged: dict[int, int]


class GrowingJournal(Protocol):
    """A journal that can be made smaller while it is written."""

    def snapshot(self) -> Snapshot | None:
        """Returns what a compaction begins with; None if there is nothing to compact.

        Raises:
            OSError: the file cannot be read.
        """

    def swap(self, smaller: SmallerJournal, snapshot: Snapshot) -> bool:
        """Puts a smaller journal in place, with what was appended meanwhile; returns whether it could.

        Raises:
            OSError: it could not be written to disk.
        """


def compact(journal: GrowingJournal, path: Path, most: int) -> dict[int, int]:
    """Makes a journal smaller, and returns how many points of each run were dropped.

    Args:
        journal: the journal.
        path: its path.
        most: maximum size in bytes; the oldest points are thinned until it is met.
    """
    dropped: dict[int, int] | None = None
    with contextlib.suppress(OSError):
        snapshot = journal.snapshot()
        if snapshot is None:
            return {}
        try:
            with snapshot.source:
                smaller = rewrite(snapshot, path, most)
                try:
                    dropped = _put_in_place(journal, path, smaller, snapshot)
                finally:
                    smaller.file.close()
        finally:
            if dropped is None:  # for whatever reason: memory may be short
                remove_leftovers(path)
    return dropped or {}


def _put_in_place(
    journal: GrowingJournal, path: Path, smaller: SmallerJournal, snapshot: Snapshot
) -> dict[int, int]:
    """Replaces a journal by a smaller one, and keeps a copy of it if it is damaged.

    Raises:
        OSError: it was not replaced.
    """
    aside = None
    swapped = False
    try:
        aside = copy(snapshot.source, path) if smaller.damaged else None
        swapped = journal.swap(smaller, snapshot)
    finally:
        if aside is not None and not swapped:
            aside.unlink()
    if not swapped:
        raise OSError(None, "the journal has changed meanwhile")
    if aside is not None:
        log(aside, None)
    return smaller.dropped


def rewrite(snapshot: Snapshot, journal: Path, most: int) -> SmallerJournal:
    """Writes a smaller journal beside a journal, line by line.

    Args:
        snapshot: the journal.
        journal: its path.
        most: as in `compact`.

    Raises:
        OSError: it could not be written to disk.
    """
    smaller = NewFile(journal.with_suffix(SMALLER_SUFFIX))
    dropped: dict[int, int] = {}
    damaged = False
    try:
        smaller.write(snapshot.head)
        for text in lines(snapshot.source, snapshot.end):
            for line in understood(text):
                damaged = damaged or line is None
                if isinstance(line, PointsLine) and line.run in snapshot.acknowledged:
                    smaller.write(_unacknowledged(line, snapshot.acknowledged[line.run]))
        while (surplus := smaller.size - most) > 0:
            smaller, lost = _thinned(smaller, journal.with_suffix(THINNED_SUFFIX), surplus)
            if not lost:
                break  # only the head is left
            for run, points in lost.items():
                dropped[run] = dropped.get(run, 0) + points
        for run, points in dropped.items():
            smaller.write(dump(DroppedLine(run, points)))
    except BaseException:
        smaller.close()
        raise
    return SmallerJournal(smaller, dropped, damaged)


def _thinned(old: NewFile, path: Path, surplus: int) -> tuple[NewFile, dict[int, int]]:
    """Returns a thinned journal in place of another one, which it closes, and what was dropped."""
    new = NewFile(path)
    try:
        lost = thin(old, new, surplus)
        old.close()  # Windows does not replace an open file
        new.move_to(old.path)
    except BaseException:
        new.close()
        raise
    return new, lost


def thin(source: NewFile, target: NewFile, surplus: int) -> dict[int, int]:
    """Writes a journal again without some of its oldest points.

    Args:
        source: the journal.
        target: an empty file.
        surplus: how many bytes to save, approximately.

    Returns:
        How many points of each run were dropped; empty if there were no points.

    Raises:
        OSError: one of the two cannot be read or written.
    """
    dropped = _between_extremes(source, surplus) or _oldest(source, surplus)
    lost: dict[int, int] = {}
    position = 0
    with source.reader() as old:
        for text in lines(old):
            line = parse(text) if position < len(dropped) else None
            if not isinstance(line, PointsLine):
                target.write(text)
                continue
            flags = dropped[position : position + len(line.values)].ljust(len(line.values), b"\0")
            position += len(line.values)
            if gone := sum(flags):
                lost[line.run] = lost.get(line.run, 0) + gone
                text = b"".join(_remains(line, flags))  # noqa: PLW2901 - what is left of it
            target.write(text)
    return lost


def extremes(values: list[float]) -> set[int]:
    """Returns the positions of the lowest and the highest value; of both ends if all are equal."""
    positions = range(len(values))
    low, high = min(positions, key=values.__getitem__), max(positions, key=values.__getitem__)
    return {low, high} if low != high else {0, len(values) - 1}


def _between_extremes(source: NewFile, surplus: int) -> bytearray:
    """Returns a flag per point, up to the last one dropped: 1 for points to drop, which are not extremes.

    Flags are indexed by position in the file. They take a byte per point, whatever the file contains.
    """
    dropped = bytearray()
    groups: dict[tuple[int, str], list[tuple[int, float]]] = {}
    saved = 0.0
    with source.reader() as file:
        for position, run, key, value in _points(file_lines=lines(file)):
            dropped.append(0)
            if len(groups) > _MOST_SERIES:
                groups.clear()
            group = groups.setdefault((run, key), [])
            group.append((position, value))
            if len(group) < _GROUP:
                continue
            del groups[run, key]
            kept = extremes([one for _, one in group])
            for number, (place, one) in enumerate(group):
                if number not in kept:
                    dropped[place] = 1
                    saved += _size(key, one) * _YIELD
            if saved >= surplus:
                break
    return dropped if any(dropped) else bytearray()


def _oldest(source: NewFile, surplus: int) -> bytearray:
    """Returns flags that drop the first points of a journal with too few points of each series to thin."""
    dropped = bytearray()
    saved = 0
    with source.reader() as file:
        for _, _, key, value in _points(file_lines=lines(file)):
            dropped.append(1)
            saved += _size(key, value)
            if saved >= surplus:
                break
    return dropped


def _points(file_lines: Iterator[bytes]) -> Iterator[tuple[int, int, str, float]]:
    """Yields position, run, key and value of each point."""
    positions = count()
    for text in file_lines:
        line = parse(text)
        if isinstance(line, PointsLine):
            for key, value in line.values.items():
                yield next(positions), line.run, key, value


def _size(key: str, value: float) -> int:
    return len(f'"{key}":{value},')


def _remains(line: PointsLine, flags: bytearray) -> Iterator[bytes]:
    """Yields lines of the remaining points, one per consecutive stretch, since a line cannot have gaps."""
    stretch: dict[str, float] = {}
    begin = line.first
    for index, ((key, value), gone) in enumerate(zip(line.values.items(), flags, strict=True), line.first):
        if not gone:
            if not stretch:
                begin = index
            stretch[key] = value
        elif stretch:
            yield dump_points(line.run, begin, line.timestamp, stretch, line.step)
            stretch = {}
    if stretch:
        yield dump_points(line.run, begin, line.timestamp, stretch, line.step)


def _unacknowledged(line: PointsLine, acknowledged: int) -> bytes:
    """Returns the part of a line that is not acknowledged; empty if there is none."""
    gone = max(acknowledged - line.first, 0)
    values = dict(list(line.values.items())[gone:])
    return dump_points(line.run, line.first + gone, line.timestamp, values, line.step) if values else b""
