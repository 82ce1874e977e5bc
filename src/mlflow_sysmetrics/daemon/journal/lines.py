"""The lines of a journal: how they are written and parsed.

JSON Lines, so that people and programs can read a journal. Each line ends with a checksum of itself, so a
damaged line is recognised and never taken for another one. Versions up to 0.2.0 wrote none; a line without
one is read if it has exactly the fields that they wrote, which damage to a checksum cannot leave behind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, TypeAlias
from zlib import crc32

# Of the file; a reader that knows a newer one still understands these lines. Raise it only for a change that
# would make an older reader send something wrong, and name in the header, as "needs", the version to install.
FORMAT = 1
# A run with a thousand series has lines of 60 kB. Longer ones are not ours and are read in pieces.
LONGEST_LINE = 1 << 20
#: Ends the beginning of a line whose rest did not fit on the disk: those points stayed in memory.
TORN = b"#torn"

# No spaces: they would be a tenth of the file. Created once, since that costs as much as a call.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
_NOT_FINITE = {repr(value): value for value in (math.nan, math.inf, -math.inf)}
_CHECKSUM = re.compile(rb',"c":"[0-9a-f]{8}"\}')
_CHECKSUM_SIZE = len(b',"c":"00000000"}')
_POINTS_LINE = re.compile(rb'\{"r":([0-9]{1,15}),"i":([0-9]{1,15}),"t":')
_BEGINNING = re.compile(rb'\{"(?:r|run|journal)":')
_MOST_BEGINNINGS = 4  # a line without a newline is glued to one other, or to the remains of one
# The fields of each kind of line that versions without checksums wrote: required, and optional.
_UNCHECKED: tuple[tuple[set[str], set[str]], ...] = (
    ({"r", "i", "t", "m"}, {"s"}),
    ({"r", "a"}, set()),
    ({"r", "d"}, set()),
    ({"r", "end"}, set()),
    ({"run", "id", "uri"}, {"started", "cgroup", "oom_kills"}),
    ({"journal", "host", "pid", "began"}, set()),
)
_FORMAT_NUMBER = re.compile(rb'\{"journal":([0-9]+)')
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,30}")


class Header(NamedTuple):
    """Which process writes the journal, and since when (milliseconds since 1970)."""

    host: str
    pid: int
    began: int


class NewerFormat(NamedTuple):
    """The header of a journal in a newer format.

    Attributes:
        format: its number.
        needs: the version that reads it, if it is named.
    """

    format: int
    needs: str | None

    def __str__(self) -> str:
        wanted = f"mlflow-sysmetrics {self.needs} or newer" if self.needs else "a newer mlflow-sysmetrics"
        return f"has the newer journal format {self.format}: install {wanted} to deliver it"


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


class NewPoints(NamedTuple):
    """Points to be written: as in `PointsLine`, their number, and the whole line."""

    run: int
    first: int
    points: int
    timestamp: int
    text: bytes


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


Line: TypeAlias = Header | NewerFormat | RunLine | PointsLine | AcknowledgedLine | DroppedLine | EndLine


def dump(line: Header | RunLine | PointsLine | AcknowledgedLine | DroppedLine | EndLine) -> bytes:
    """Returns a line as it is written, with its checksum and its newline."""
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
    return _sealed(_encode(fields)[:-1])


def dump_points(
    run: int, index: int, timestamp: int, values: Mapping[str, float], step: int | None = None
) -> bytes:
    """Returns a line of points. The only kind that is written often."""
    return sealed_points(run, index, timestamp, step, dump_values(values))


def sealed_points(run: int, index: int, timestamp: int, step: int | None, values: str) -> bytes:
    """Returns a line of points whose values are written already, by `dump_values`."""
    at = f'"t":{timestamp}' if step is None else f'"t":{timestamp},"s":{step}'
    return _sealed(f'{{"r":{run},"i":{index},{at},"m":{{{values}}}')


def dump_values(values: Mapping[str, float]) -> str:
    """Returns values as they are written in a line of points, without the braces."""
    try:
        return _encode(values)[1:-1]
    except ValueError:  # JSON has no NaN and no infinity
        named = {key: value if math.isfinite(value) else repr(value) for key, value in values.items()}
        return _encode(named)[1:-1]


def parse(text: bytes) -> Line | None:
    """Returns the parsed line; None if it is not a valid line."""
    text = text.rstrip()
    checked = text[-_CHECKSUM_SIZE:-10] == b',"c":"'
    intact = checked and _checksum(text[:-_CHECKSUM_SIZE]) == text[-_CHECKSUM_SIZE:]
    if checked and not intact and not text.startswith(b'{"journal":'):
        return None
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return None
        if "journal" in fields and _whole(fields["journal"]) > FORMAT:
            return None if not intact and _is_damaged_header(text) else _newer(fields)
        return _understand(fields) if intact or _is_unchecked(fields.keys()) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def understood(text: bytes) -> Iterator[Line | None]:
    """Yields what a line of the file holds, and None for each part that is damaged.

    That is one line; several if the newline between them was lost; nothing for the remains of a line that
    was being written when its process was killed or its disk was full.
    """
    line = parse(text)
    if line is not None:
        yield line
        return
    body = text.removesuffix(b"\n")
    is_torn = body.endswith(TORN) or (len(body) == len(text) < LONGEST_LINE)
    body = body.removesuffix(TORN)
    begin = 0
    for checksum in _CHECKSUM.finditer(body):
        yield from _salvaged(body[begin : checksum.end()])
        begin = checksum.end()
    rest = body[begin:].strip()
    if not rest:
        return
    line = parse(rest)
    if line is not None or not (is_torn and _is_beginning(rest)):
        yield line


def points_line(text: bytes) -> tuple[int, int] | None:
    """Returns the run and the first index of a line of points, without parsing it; None if it is not intact.

    Neither is a line that another one is glued to.
    """
    found = _POINTS_LINE.match(text)
    body = text.removesuffix(b"\n")
    if found is None or _checksum(body[:-_CHECKSUM_SIZE]) != body[-_CHECKSUM_SIZE:]:
        return None
    return int(found[1]), int(found[2])


def lines(file: BinaryIO, most: int | None = None) -> Iterator[bytes]:
    """Yields the lines of a journal from the file's position on, holding one at a time.

    Args:
        file: the journal, opened for reading.
        most: maximum number of bytes to read; by default all.
    """
    left = most
    while left is None or left > 0:
        wanted = LONGEST_LINE if left is None else min(LONGEST_LINE, left)
        line = file.readline(wanted)
        if not line:
            return
        if left is not None:
            left -= len(line)
        yield line
        if len(line) < wanted and not line.endswith(b"\n"):
            return  # the end; what a live owner has appended by now would be the rest of this line


def _sealed(text: str) -> bytes:
    """Returns a line without its closing brace as it is written."""
    encoded = text.encode("ascii")
    return b'%b,"c":"%08x"}\n' % (encoded, crc32(encoded))


def _checksum(text: bytes) -> bytes:
    return b',"c":"%08x"}' % crc32(text)


def _salvaged(text: bytes) -> Iterator[Line | None]:
    """Yields the line at the end of a text that ends with a checksum, and None if there is something else."""
    line = parse(text)
    if line is not None:
        yield line
        return
    yield None
    begins = [found.start() for found in _BEGINNING.finditer(text, 1)]
    for begin in reversed(begins[-_MOST_BEGINNINGS:]):
        line = parse(text[begin:])
        if line is not None:
            yield line
            return


def _is_beginning(text: bytes) -> bool:
    """Returns whether a text may be the beginning of a line that we were writing."""
    return text.startswith(b"{") and text.isascii() and text.decode("ascii").isprintable()


def _is_unchecked(names: Iterable[str]) -> bool:
    """Returns whether fields are exactly those of a line that a version without checksums wrote."""
    found = set(names)
    return any(required <= found <= required | optional for required, optional in _UNCHECKED)


def _is_damaged_header(text: bytes) -> bool:
    """Returns whether a header is ours but for a flipped bit or one more digit in its format's number."""
    found = _FORMAT_NUMBER.match(text)
    if found is None or parse(b'{"journal":%d' % FORMAT + text[found.end() :]) is None:
        return False
    number, ours = found[1], b"%d" % FORMAT
    flipped = len(number) == len(ours) and (int.from_bytes(number, "big") ^ int.from_bytes(ours, "big"))
    return flipped.bit_count() == 1 or (len(number) == len(ours) + 1 and ours in number)


def _newer(fields: dict[str, Any]) -> NewerFormat:
    needs = fields.get("needs")
    is_version = isinstance(needs, str) and _VERSION.fullmatch(needs) is not None
    return NewerFormat(fields["journal"], needs if is_version else None)


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
    if fields.get("journal") == FORMAT:
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
