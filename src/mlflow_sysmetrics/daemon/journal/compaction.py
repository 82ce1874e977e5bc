"""Makes a journal smaller: writes it again without what is settled, and thinned where that is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import BinaryIO

from mlflow_sysmetrics.daemon.journal.lines import DroppedLine, PointsLine, dump, dump_points, lines, parse

# FOLDED thinning: Which points a full journal can best do without.
# FOLDED
# FOLDED  Of four points of a series that follow each other the lowest and the highest stay, at their own times: a peak
# FOLDED  of memory or a stall of the network is still there in a curve of half the points, and again of a quarter.

_GROUP = 4
# A bound of the memory, 25 MB: so many series may wait for their fourth point. When there are more the groups
# begin anew, and some points are not thinned this time.
_MOST_SERIES = 50_000
# A point that stays between two that go needs a line of its own, which takes back two fifths of what they had
# (24 series of random values; smooth ones go by whole lines). Thinning is repeated where that was too little.
_YIELD = 0.6


def thin(source: Path, target: Path, surplus: int) -> dict[int, int]:
    """Writes a journal again without some of its oldest points.

    Args:
        source: the journal.
        target: an empty file.
        surplus: how many bytes there are too many. About so many go.

    Returns:
        How many points of each run were dropped; none where there are no points.

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
    """Returns the positions of the lowest and the highest value; of equal ones the first and the last."""
    positions = range(len(values))
    low, high = min(positions, key=values.__getitem__), max(positions, key=values.__getitem__)
    return {low, high} if low != high else {0, len(values) - 1}


def _between_extremes(source: Path, surplus: int) -> bytearray:
    """Returns a flag for each point of a journal, up to the last that goes: 1 for those that are no extremes.

    Flags are by position in the file, which takes a byte per point, and no more whatever the file says.
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
    """Returns flags as above: 1 for the first points of a journal that has too few of each series to thin."""
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
    """Yields lines of the points that stay: one for each stretch of them, since a line has no gaps."""
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


TEMPORARY_SUFFIX = ".new"  #: beside the journal, until it takes its place
_SECOND_SUFFIX = ".thin"
_OWN_EYES_ONLY = 0o600
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def rewrite(  # noqa: PLR0917 - the journal is the only caller, and has them all
    old: BinaryIO, end: int, head: bytes, acknowledged: Mapping[int, int], most: int, journal: Path
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
            if isinstance(line, PointsLine) and line.run in acknowledged:
                new.write(_waiting(line, acknowledged[line.run]))
    dropped: dict[int, int] = {}
    second = journal.with_suffix(_SECOND_SUFFIX)
    while (surplus := smaller.stat().st_size - most) > 0:
        write_fresh(second)
        lost = thin(smaller, second, surplus)
        os.replace(second, smaller)  # noqa: PTH105 - the same call, by the name that says it
        if not lost:
            break  # nothing but the head is left
        for run, points in lost.items():
            dropped[run] = dropped.get(run, 0) + points
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


def _waiting(line: PointsLine, acknowledged: int) -> bytes:
    """Returns what of a line is not settled, as a line, or nothing."""
    gone = max(acknowledged - line.first, 0)
    values = dict(list(line.values.items())[gone:])
    return dump_points(line.run, line.first + gone, line.timestamp, values, line.step) if values else b""
