"""Reads a journal from its beginning: for recovery, dry runs and status.

Files of any size are read line by line and without a lock. A journal that is being written shows what was
there at that moment. What is damaged is counted, and nothing is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.lines import (
    AcknowledgedLine,
    DroppedLine,
    EndLine,
    Header,
    Line,
    NewerFormat,
    PointsLine,
    RunLine,
    dump,
    lines,
    understood,
)
from mlflow_sysmetrics.daemon.journal.open_file import open_to_read


class JournaledRun(NamedTuple):
    """The state of a run according to a journal.

    Attributes:
        number: the run's number in this journal.
        run_id: the run.
        tracking_uri: its tracking server, without user and password.
        started_at: milliseconds since 1970 when the run started, if known.
        cgroup: directory of the writer's own memory control group.
        oom_kills: that group's count of out-of-memory kills when the run was attached.
        acknowledged: all points below this index were delivered or given up.
        dropped: number of points dropped to keep the journal within its bound.
        ended: whether the run was detached; if not, its process may have died.
        appended: one more than the highest index; nothing waits if `acknowledged` has reached it.
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
    """The state of a run while it changes.

    Attributes:
        line: the run's introduction in the file.
        acknowledged: as in `JournaledRun`.
        appended: as in `JournaledRun`.
        dropped: as in `JournaledRun`.
        ended: as in `JournaledRun`.
        last_timestamp: as in `JournaledRun`.
        written: whether `line` is in the file; other lines of the run mean nothing before it.
    """

    line: RunLine
    acknowledged: int = 0
    appended: int = 0
    dropped: int = 0
    ended: bool = False
    last_timestamp: int | None = None
    written: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing of the run waits and nothing more will come."""
        return self.ended and self.acknowledged >= self.appended

    def introduction(self) -> bytes:
        """Returns the lines about the run that must come before its points."""
        number = self.line.run
        text = dump(self.line)
        if self.acknowledged:
            text += dump(AcknowledgedLine(number, self.acknowledged))
        if self.dropped:
            text += dump(DroppedLine(number, self.dropped))
        if self.ended:
            text += dump(EndLine(number))
        return text

    def freeze(self) -> JournaledRun:
        """Returns the current state."""
        appended = max(self.appended, self.acknowledged)  # acknowledged points may have left the file
        return JournaledRun(
            *self.line, self.acknowledged, self.dropped, self.ended, appended, self.last_timestamp
        )


class Damage(NamedTuple):
    """What in a journal cannot be delivered because it is not understood.

    Attributes:
        lines: lines that cannot be read.
        points: undelivered points whose run is unknown, since its line cannot be read.
    """

    lines: int
    points: int

    def __str__(self) -> str:
        found = []
        if self.lines:
            found.append(f"{self.lines:,} line{'' if self.lines == 1 else 's'} cannot be read")
        if self.points:
            found.append(f"the run of {self.points:,} point{'' if self.points == 1 else 's'} is not known")
        return ", and ".join(found)


@dataclass(slots=True)
class JournalState:
    """What one pass over a journal finds, except for the points.

    Attributes:
        header: the header; None if it cannot be read.
        runs: the runs by number, in the order of the file.
        newer: the header, if the journal is in a newer format; then nothing else of it may be used.
    """

    header: Header | None = None
    runs: dict[int, RunState] = field(default_factory=dict)
    newer: NewerFormat | None = None
    _damaged: int = 0
    _nameless: dict[int, RunState] = field(default_factory=dict)  # runs whose line has not been read
    _ambiguous: set[int] = field(default_factory=set)  # numbers of more than one run

    @property
    def damage(self) -> Damage | None:
        """What is damaged; None if everything is understood."""
        nameless = sum(max(run.appended - run.acknowledged, 0) for run in self._nameless.values())
        found = Damage(self._damaged, nameless)
        return found if any(found) else None

    def take(self, text: bytes) -> None:
        """Adds a line that is not parsed yet."""
        for line in understood(text):
            self.note(line)

    def note(self, line: Line | None) -> None:
        """Adds a parsed line; None is a damaged one."""
        match line:
            case None:
                self._damaged += 1
            case Header():
                self.header = line
            case NewerFormat():
                self.newer = line
            case RunLine():
                self._note_run(line)
            case _:
                run = self.runs.get(line.run)
                _note(line, run or self._nameless.setdefault(line.run, RunState(_nameless(line.run))))

    def _note_run(self, line: RunLine) -> None:
        known = self.runs.get(line.run)
        if line.run in self._ambiguous or (known is not None and known.line[:3] != line[:3]):
            # Two journals in one file: whose points are whose is not known.
            self._ambiguous.add(line.run)
            self._damaged += 1
            if known is not None:
                self._nameless[line.run] = self.runs.pop(line.run)
        else:
            run = known or self._nameless.pop(line.run, None) or RunState(line)
            self.runs[line.run] = replace(run, line=line, written=True)


def _nameless(number: int) -> RunLine:
    return RunLine(number, "", "", None, None, None)


def _note(line: PointsLine | AcknowledgedLine | DroppedLine | EndLine, run: RunState) -> None:
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
    with open_to_read(path) as file:
        return state_of(file)


def state_of(file: BinaryIO) -> JournalState:
    """Reads a journal from the file's position on.

    Raises:
        OSError: it cannot be read.
    """
    found = JournalState()
    for line in lines(file):
        found.take(line)
    return found


def scan(path: Path) -> list[JournaledRun]:
    """Returns the runs of a journal in the order in which they were attached.

    Raises:
        OSError: it cannot be read.
    """
    return [run.freeze() for run in read_state(path).runs.values()]


def unacknowledged(path: Path, run: int) -> Iterator[tuple[int, Point]]:
    """Yields (index, point) for every point that waits for delivery, each once, in order.

    Args:
        path: the journal.
        run: number of the run in it.

    Raises:
        OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        known = state_of(file).runs.get(run)
        since = 0 if known is None else known.acknowledged
        file.seek(0)
        for text in lines(file) if known is not None else ():
            for index, point in _points_of(text, run):
                if index >= since:
                    since = index + 1
                    yield index, point


def _points_of(text: bytes, run: int) -> Iterator[tuple[int, Point]]:
    """Yields (index, point) for the points of the run in a line."""
    # With many runs most lines belong to others, and parsing is expensive: check the prefix that we write. A
    # second one may be that of another line, glued to the first.
    of_another = text.startswith(b'{"r":') and not text.startswith(b'{"r":%d,' % run)
    if of_another and text[5:6].isdigit() and text.find(b'{"r":', 5) < 0:
        return
    for line in understood(text):
        if isinstance(line, PointsLine) and line.run == run:
            for index, (key, value) in enumerate(line.values.items(), line.first):
                yield index, Point(key, value, line.timestamp, line.step)
