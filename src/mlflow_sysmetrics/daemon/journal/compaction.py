"""Makes a journal smaller: rewrites it without acknowledged points, and thins the rest if necessary.

Of four consecutive points of a series the lowest and the highest stay, with their times. So a memory peak or
a network stall is still visible in a curve of half the points, or of a quarter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import BinaryIO

from mlflow_sysmetrics.daemon.journal.lines import DroppedLine, PointsLine, dump, dump_points, lines, parse
from mlflow_sysmetrics.daemon.journal.ownership import SMALLER_SUFFIX, THINNED_SUFFIX

_OWN_EYES_ONLY = 0o600
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # not on Windows

_GROUP = 4
# Bounds the memory at 25 MB: this many series may wait for their fourth point. With more, the groups start
# afresh, and some points are not thinned this time.
_MOST_SERIES = 50_000
# A point that stays between two dropped ones needs its own line, which takes back two fifths of what they
# saved (24 series of random values; smooth ones are dropped by whole lines). Thinning is repeated if that was
# not enough.
_YIELD = 0.6


def rewrite(
    old: BinaryIO, end: int, *, head: bytes, acknowledged: Mapping[int, int], most: int, journal: Path
) -> tuple[Path, dict[int, int]]:
    """Writes a smaller journal beside a journal, line by line.

    Args:
        old: the journal, open for reading; it may grow meanwhile.
        end: where to stop reading it.
        head: the beginning of the smaller one: header and runs.
        acknowledged: the index below which points are acknowledged, by number of the runs that are kept.
        most: maximum size in bytes; the oldest points are thinned until it is met.
        journal: the journal's path.

    Returns:
        The smaller journal, and how many points of each run were dropped.

    Raises:
        OSError: it could not be written to disk.
    """
    smaller = journal.with_suffix(SMALLER_SUFFIX)
    write_fresh(smaller)
    with smaller.open("ab") as new:
        new.write(head)
        for text in lines(old, end):
            line = parse(text)
            if isinstance(line, PointsLine) and line.run in acknowledged:
                new.write(_unacknowledged(line, acknowledged[line.run]))
    dropped: dict[int, int] = {}
    second = journal.with_suffix(THINNED_SUFFIX)
    while (surplus := smaller.stat().st_size - most) > 0:
        write_fresh(second)
        lost = thin(smaller, second, surplus)
        second.replace(smaller)
        if not lost:
            break  # only the head is left
        for run, points in lost.items():
            dropped[run] = dropped.get(run, 0) + points
    with smaller.open("ab") as new:
        new.writelines(dump(DroppedLine(run, count)) for run, count in dropped.items())
    return smaller, dropped


def write_fresh(path: Path) -> None:
    """Creates an empty file, readable by this user only, in place of an older one.

    Raises:
        OSError: it cannot be created.
    """
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, _OWN_EYES_ONLY))


def thin(source: Path, target: Path, surplus: int) -> dict[int, int]:
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
    with source.open("rb") as old, target.open("ab") as new:
        for text in lines(old):
            line = parse(text) if position < len(dropped) else None
            if not isinstance(line, PointsLine):
                new.write(text)
                continue
            flags = dropped[position : position + len(line.values)].ljust(len(line.values), b"\0")
            position += len(line.values)
            if gone := sum(flags):
                lost[line.run] = lost.get(line.run, 0) + gone
                text = b"".join(_remains(line, flags))  # noqa: PLW2901 - what is left of it
            new.write(text)
    return lost


def extremes(values: list[float]) -> set[int]:
    """Returns the positions of the lowest and the highest value; of both ends if all are equal."""
    positions = range(len(values))
    low, high = min(positions, key=values.__getitem__), max(positions, key=values.__getitem__)
    return {low, high} if low != high else {0, len(values) - 1}


def _between_extremes(source: Path, surplus: int) -> bytearray:
    """Returns a flag per point, up to the last one dropped: 1 for points to drop, which are not extremes.

    Flags are indexed by position in the file. They take a byte per point, whatever the file contains.
    """
    dropped = bytearray()
    groups: dict[tuple[int, str], list[tuple[int, float]]] = {}
    saved = 0.0
    with source.open("rb") as file:
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


def _oldest(source: Path, surplus: int) -> bytearray:
    """Returns flags that drop the first points of a journal with too few points of each series to thin."""
    dropped = bytearray()
    saved = 0
    with source.open("rb") as file:
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
