"""What a journal says when it is read from its beginning: for recovery, dry runs and status.

Reads one file of any size, line by line, and needs no lock: of a journal that is being written it sees what
was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    DroppedLine,
    EndLine,
    Header,
    Line,
    PointsLine,
    RunLine,
    lines,
    parse,
)


class JournaledRun(NamedTuple):
    """What a journal knows of a run.

    Attributes:
        number: stands for the run in this journal.
        run_id: the run.
        tracking_uri: its tracking server, without user and password.
        started_at: milliseconds since 1970 when the run started, if it was known.
        cgroup: directory of the writer's own memory control group.
        oom_kills: what that group had counted when the run was attached.
        settled: all points below this index are delivered or given up.
        dropped: points that were dropped to keep the journal within its bound.
        ended: whether the run was detached; if not, its process may have died.
        appended: one more than the highest index, so nothing waits where `settled` has reached it.
        last_timestamp: milliseconds since 1970 of the newest point that is still in the file.
    """

    number: int
    run_id: str
    tracking_uri: str
    started_at: int | None
    cgroup: str | None
    oom_kills: int | None
    acknowledged: int
    dropped: int
    ended: bool
    appended: int = 0
    last_timestamp: int | None = None


@dataclass(slots=True)
class RunState:
    """What is known of a run, while it grows.

    Attributes:
        line: who the run is.
        settled: as in `JournaledRun`.
        appended: as there.
        dropped: as there.
        ended: as there.
        last_timestamp: as there.
        written: whether the file says who the run is; its other lines mean nothing before.
    """

    line: RunLine
    acknowledged: int = 0
    appended: int = 0
    dropped: int = 0
    ended: bool = False
    last_timestamp: int | None = None
    written: bool = False

    def freeze(self) -> JournaledRun:
        """Returns what is known now."""
        appended = max(
            self.appended, self.acknowledged
        )  # those that were settled may not be in the file any more
        return JournaledRun(
            *self.line, self.acknowledged, self.dropped, self.ended, appended, self.last_timestamp
        )


@dataclass(slots=True)
class JournalState:
    """All that one pass over a journal tells, but the points.

    Attributes:
        header: who wrote it; None where its first line is not understood.
        runs: by number, in the order of the file.
    """

    header: Header | None = None
    runs: dict[int, RunState] = field(default_factory=dict)

    def take(self, text: bytes) -> None:
        """Takes one line."""
        self.note(parse(text))

    def note(self, line: Line | None) -> None:
        """Takes what one line says."""
        if isinstance(line, Header):
            self.header = line
        elif isinstance(line, RunLine):
            self.runs.setdefault(line.run, RunState(line)).written = True
        elif line is not None and (run := self.runs.get(line.run)) is not None:
            match line:
                case PointsLine(_, first, timestamp, values, _):
                    run.appended = max(run.appended, first + len(values))
                    run.last_timestamp = max(run.last_timestamp or timestamp, timestamp)
                case AcknowledgedLine(_, acknowledged):
                    run.acknowledged = max(run.acknowledged, acknowledged)
                case DroppedLine(_, points):
                    run.dropped += points
                case EndLine():
                    run.ended = True


def read_state(path: Path) -> JournalState:
    """Reads a journal.

    Raises:
        OSError: it cannot be read.
    """
    found = JournalState()
    with path.open("rb") as file:
        for line in lines(file):
            found.take(line)
    return found


def scan(path: Path) -> list[JournaledRun]:
    """Returns the runs of a journal, in the order in which they were attached.

    Raises:
        OSError: it cannot be read.
    """
    return [run.freeze() for run in read_state(path).runs.values()]


def unacknowledged(path: Path, run: int) -> Iterator[tuple[int, Point]]:
    """Yields index and point of everything that waits for delivery, each once, in order.

    Args:
        path: the journal.
        run: number of the run in it.

    Raises:
        OSError: it cannot be read.
    """
    known = read_state(path).runs.get(run)
    if known is None:
        return
    since = known.acknowledged
    with path.open("rb") as file:
        for text in lines(file):
            for index, point in _points_of(text, run):
                if index >= since:
                    since = index + 1
                    yield index, point


def read(  # noqa: PLR0917 - the journal is the only caller, and has them all
    file: BinaryIO, run: int, since: int, offset: int, end: int, most: int
) -> tuple[list[tuple[int, Point]], int]:
    """Reads points of a run, a part of the file at a time.

    Args:
        file: the journal, open for reading.
        run: number of the run.
        since: index of the first point that is wanted.
        offset: where a line begins.
        end: where to stop, the end of a line.
        most: how many points; at least one line is read, however long it is.

    Returns:
        Index and point, in order, and the offset to go on from.

    Raises:
        OSError: it cannot be read.
    """
    found: list[tuple[int, Point]] = []
    file.seek(offset)
    for text in lines(file, end - offset):
        more = [pair for pair in _points_of(text, run) if pair[0] >= since]
        if found and len(found) + len(more) > most:
            break
        found += more
        offset += len(text)
        since = found[-1][0] + 1 if found else since
        if len(found) >= most:
            break
    return found, offset


def _points_of(text: bytes, run: int) -> Iterator[tuple[int, Point]]:
    """Yields index and point of a line, if it holds points of the run."""
    # Most lines of a journal with many runs are others', and parsing is dear. This is how we write them.
    if text.startswith(b'{"r":') and text[5:6].isdigit() and not text.startswith(b'{"r":%d,' % run):
        return
    line = parse(text)
    if isinstance(line, PointsLine) and line.run == run:
        for index, (key, value) in enumerate(line.values.items(), line.first):
            yield index, Point(key, value, line.timestamp, line.step)
