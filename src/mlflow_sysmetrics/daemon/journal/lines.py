"""The lines of a journal: how they are written and parsed.

JSON Lines, so that people and programs can read a journal. Lines that cannot be parsed (torn by a crash,
foreign, from a newer version) are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

FORMAT = 1  #: of the file; a reader that knows a newer one still understands these lines
# A run with a thousand series has lines of 60 kB. Longer ones are not ours and are read in pieces.
LONGEST_LINE = 1 << 20

# No spaces: they would be a tenth of the file. Created once, since that costs as much as a call.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
_NOT_FINITE = {repr(value): value for value in (math.nan, math.inf, -math.inf)}


class Header(NamedTuple):
    """Which process writes the journal, and since when (milliseconds since 1970)."""

    host: str
    pid: int
    began: int


class RunLine(NamedTuple):
    """A run, and the number that the following lines refer to it by."""

    run: int
    run_id: str
    tracking_uri: str
    started_at: int | None
    cgroup: str | None
    oom_kills: int | None


class PointsLine(NamedTuple):
    """Points of one run at one time and step; a step of None means whole seconds since the run started.

    Their indices count from `first`, in the order of the keys.
    """

    run: int
    first: int
    timestamp: int
    values: dict[str, float]
    step: int | None = None


class AcknowledgedLine(NamedTuple):
    """All points of the run below this index were delivered or given up."""

    run: int
    acknowledged: int


class DroppedLine(NamedTuple):
    """Number of points of the run that were dropped, in addition, to keep the journal within its bound."""

    run: int
    points: int


class EndLine(NamedTuple):
    """The run was detached: no more points will come."""

    run: int


Line: TypeAlias = Header | RunLine | PointsLine | AcknowledgedLine | DroppedLine | EndLine


def dump(line: Line) -> bytes:
    """Returns a line as it is written, with its newline."""
    match line:
        case PointsLine(run, index, timestamp, values, step):
            return dump_points(run, index, timestamp, values, step)
        case Header(host, pid, began):
            fields: dict[str, Any] = {"journal": FORMAT, "host": host, "pid": pid, "began": began}
        case RunLine(run, run_id, uri, started_at, cgroup, oom_kills):
            fields = {"run": run, "id": run_id, "uri": uri, "started": started_at}
            fields |= {"cgroup": cgroup, "oom_kills": oom_kills}
        case AcknowledgedLine(run, acknowledged):
            fields = {"r": run, "a": acknowledged}
        case DroppedLine(run, points):
            fields = {"r": run, "d": points}
        case EndLine(run):
            fields = {"r": run, "end": True}
    return f"{_encode(fields)}\n".encode("ascii")


def dump_points(
    run: int, index: int, timestamp: int, values: Mapping[str, float], step: int | None = None
) -> bytes:
    """Returns a line of points. The only kind that is written often."""
    at = f'"t":{timestamp}' if step is None else f'"t":{timestamp},"s":{step}'
    try:
        text = _encode(values)
    except ValueError:  # JSON has no NaN and no infinity
        text = _encode({key: value if math.isfinite(value) else repr(value) for key, value in values.items()})
    return f'{{"r":{run},"i":{index},{at},"m":{text}}}\n'.encode("ascii")


def parse(text: bytes) -> Line | None:
    """Returns the parsed line; None if it is not a valid line."""
    try:
        fields = json.loads(text)
        return _understand(fields) if isinstance(fields, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def lines(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Yields the lines of a journal from the file's position on, holding one at a time.

    Args:
        file: the journal, opened for reading.
        most: maximum number of bytes to read; by default all.
    """
    left = most
    while left is None or left > 0:
        line = file.readline(LONGEST_LINE if left is None else min(LONGEST_LINE, left))
        if not line:
            return
        if left is not None:
            left -= len(line)
        yield line


def copy_lines(source: BinaryIO, begin: int, end: int, target: Path) -> None:
    """Appends the lines between two offsets of a file that is open for reading to another file.

    Raises:
        OSError: one of the two cannot be read or written.
    """
    with target.open("ab") as new:
        source.seek(begin)
        for text in lines(source, end - begin):
            new.write(text)


def _understand(fields: dict[str, Any]) -> Line | None:  # noqa: PLR0911 - one per kind of line
    if "m" in fields:
        values = {key: _value(value) for key, value in fields["m"].items()}
        step = fields.get("s")
        return PointsLine(
            _count(fields["r"]),
            _count(fields["i"]),
            _whole(fields["t"]),
            values,
            None if step is None else _whole(step),
        )
    if "a" in fields:
        return AcknowledgedLine(_count(fields["r"]), _count(fields["a"]))
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


def _value(value: object) -> float:
    """Returns a value. A non-number invalidates the whole line: skipping it would shift later indices."""
    if isinstance(value, str):
        return _NOT_FINITE[value]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)


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
