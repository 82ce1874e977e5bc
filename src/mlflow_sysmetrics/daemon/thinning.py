"""Which points a full journal can best do without.

Of four points of a series that follow each other the lowest and the highest stay, at their own times: a peak
of memory or a stall of the network is still there in a curve of half the points, and again of a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from mlflow_sysmetrics.daemon.journal_lines import PointsLine, dump_points, lines, parse

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
