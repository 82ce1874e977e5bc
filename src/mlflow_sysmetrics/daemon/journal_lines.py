"""The lines of a journal: how each is written, and what is read from one.

JSON Lines, so that a person can read a journal and any program can. Whatever is not understood (torn by a
crash, foreign, newer than this version) is no line at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, TypeAlias

FORMAT = 1  #: of the file; a reader that knows a newer one still understands these lines
# A run with a thousand series has lines of 60 kB. What is longer is not ours, and is read in pieces.
LONGEST_LINE = 1 << 20

# No blanks: they would be a tenth of the file. Made once, since making one costs as much as using it.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Header(NamedTuple):
    """Who writes the journal, and since when (milliseconds since 1970)."""

    host: str
    pid: int
    began: int


class RunLine(NamedTuple):
    """A run and the number that stands for it in the lines that follow."""

    run: int
    run_id: str
    tracking_uri: str
    started_at: int | None
    cgroup: str | None
    oom_kills: int | None


class PointsLine(NamedTuple):
    """Points of one run at one time; they have the indices from `first` on, in the order of the keys."""

    run: int
    first: int
    timestamp: int
    values: dict[str, float]


class SettledLine(NamedTuple):
    """All points of the run below this index are delivered or given up."""

    run: int
    settled: int


class DroppedLine(NamedTuple):
    """So many more points of the run were dropped to keep the journal within its bound."""

    run: int
    points: int


class EndLine(NamedTuple):
    """The run was detached: nothing more will come."""

    run: int


Line: TypeAlias = Header | RunLine | PointsLine | SettledLine | DroppedLine | EndLine


def dump(line: Line) -> bytes:
    """Returns a line as it stands in the file, with its newline."""
    match line:
        case PointsLine(run, index, timestamp, values):
            return dump_points(run, index, timestamp, values)
        case Header(host, pid, began):
            fields: dict[str, Any] = {"journal": FORMAT, "host": host, "pid": pid, "began": began}
        case RunLine(run, run_id, uri, started_at, cgroup, oom_kills):
            fields = {"run": run, "id": run_id, "uri": uri, "started": started_at}
            fields |= {"cgroup": cgroup, "oom_kills": oom_kills}
        case SettledLine(run, settled):
            fields = {"r": run, "a": settled}
        case DroppedLine(run, points):
            fields = {"r": run, "d": points}
        case EndLine(run):
            fields = {"r": run, "end": True}
    return f"{_encode(fields)}\n".encode("ascii")


def dump_points(run: int, index: int, timestamp: int, values: Mapping[str, float]) -> bytes:
    """Returns a line of points; the only one that is written often."""
    return f'{{"r":{run},"i":{index},"t":{timestamp},"m":{_encode(values)}}}\n'.encode("ascii")


def parse(text: bytes) -> Line | None:
    """Returns what a line says; None for one that is not understood."""
    try:
        fields = json.loads(text)
        return _understand(fields) if isinstance(fields, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def lines(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Yields the lines of a journal from where the file stands, without holding more than one.

    Args:
        file: the journal, opened for reading.
        most: how many bytes to read at most; by default all.
    """
    left = most
    while left is None or left > 0:
        line = file.readline(LONGEST_LINE if left is None else min(LONGEST_LINE, left))
        if not line:
            return
        if left is not None:
            left -= len(line)
        yield line


def _understand(fields: dict[str, Any]) -> Line | None:  # noqa: PLR0911 - one per kind of line
    if "m" in fields:
        values = {key: float(value) for key, value in fields["m"].items() if _is_finite(value)}
        # One that is no number would shift the indices of those behind it.
        whole = len(values) == len(fields["m"])
        line = PointsLine(_count(fields["r"]), _count(fields["i"]), _whole(fields["t"]), values)
        return line if whole else None
    if "a" in fields:
        return SettledLine(_count(fields["r"]), _count(fields["a"]))
    if "d" in fields:
        return DroppedLine(_count(fields["r"]), _count(fields["d"]))
    if "end" in fields:
        return EndLine(_count(fields["r"]))
    if "run" in fields:
        started_at, oom_kills, cgroup = (fields.get(name) for name in ("started", "oom_kills", "cgroup"))
        return RunLine(
            _count(fields["run"]),
            _text(fields["id"]),
            _text(fields["uri"]),
            None if started_at is None else _whole(started_at),
            None if cgroup is None else _text(cgroup),
            None if oom_kills is None else _count(oom_kills),
        )
    if "journal" in fields:
        return Header(_text(fields["host"]), _whole(fields["pid"]), _whole(fields["began"]))
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _count(value: object) -> int:
    count = _whole(value)
    if count < 0:
        raise ValueError(value)
    return count


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
