"""The points that a program sampled, recorded independently of the journal under test.

The program calls `record`. It writes a line to a side file before every `RunSeries.emit` and `emit_all`: the points.
(And one with the figures of a summary, where there are some.)
It writes another once they are written, which is after `emit`, or after the block in which `PointBuffer` takes the
points of all runs to write them together. Its resolution is constant, so every point is sent. So whenever a program
is killed, the points it must deliver are bounded: all confirmed ones, and at most those of the one interrupted tick.
A forked child that samples writes to the same file, under its own process id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
    from mlflow_sysmetrics.summary.announcer import Announcement

# Families with levels and rates only. A total counts from the first point of the run, which would have to be
# recomputed here.
COLLECTORS = "cpu,disk"


class Sampled(NamedTuple):
    """A point as sampled by the program; the server adds a step."""

    run_id: str
    key: str
    timestamp: int
    value: float


class SideFile:
    """Where a program records its points.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._write = os.write  # a program may patch it later
        self._unconfirmed: set[int] = set()

    def put(self, run_id: str, timestamp: int, points: Mapping[str, float], **more: bool) -> None:
        """Records points that are about to be taken."""
        pid = os.getpid()
        tick = {"pid": pid, "run": run_id, "t": timestamp, "points": dict(points), **more}
        self._write(self._file, (json.dumps(tick) + "\n").encode())
        self._unconfirmed.add(pid)

    def confirm(self) -> None:
        """Records that all points of this process so far were taken."""
        pid = os.getpid()
        if pid in self._unconfirmed:
            self._unconfirmed.discard(pid)
            self._write(self._file, b'{"taken": %d}\n' % pid)


def record(path: str) -> None:
    """Records what this program samples from now on."""
    from mlflow_sysmetrics.daemon.delivery.inbox import PointBuffer
    from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
    from mlflow_sysmetrics.daemon.sampling.window import DECIMALS, Value
    from mlflow_sysmetrics.samples import TOTALS

    side = SideFile(path)

    def recorded(emit: Callable[..., None]) -> Callable[..., None]:
        def emit_recorded(self: RunSeries, values: Iterable[Value], timestamp: int) -> None:
            assert not self.settings.adaptive
            given = timestamp
            taken = list(values)
            for value in taken:
                assert value.kind not in TOTALS, f"{value.key} is a total"
            points = {f"system/{key}": round(value, DECIMALS) for key, _, value in taken}
            if taken and self.settings.window_seconds >= 1:
                # Two windows in one second, of a run whose start is not known yet, are moved apart.
                timestamp = self.steps.place(timestamp, self.channel.queue.started_at)
            side.put(self.key[1], timestamp, points)
            emit(self, taken, given)
            if not self.channel._buffer._is_open:
                side.confirm()

        return emit_recorded

    def exit_recorded(self: PointBuffer, *error: object) -> None:
        write_all(self, *error)
        side.confirm()

    write_all = PointBuffer.__exit__
    PointBuffer.__exit__ = exit_recorded  # type: ignore[method-assign]

    RunSeries.emit = recorded(RunSeries.emit)  # type: ignore[method-assign]
    RunSeries.emit_all = recorded(RunSeries.emit_all)  # type: ignore[method-assign]
    _record_figures(RunSeries, side)


def _record_figures(series: type[RunSeries], side: SideFile) -> None:
    """Records the figures of summaries, which travel with the points of a tick, or with the last ones."""
    say, end = series._say, series.end

    def say_recorded(self: RunSeries, said: Announcement) -> None:
        side.put(self.key[1], self._at, said.metrics, summary=True)
        say(self, said)

    def end_recorded(self: RunSeries) -> None:
        end(self)
        if not self.channel._buffer._is_open:
            side.confirm()

    series._say = say_recorded  # type: ignore[method-assign]
    series.end = end_recorded  # type: ignore[method-assign]


@dataclass
class Evidence:
    """The side files of one or more programs.

    Attributes:
        taken: points that were confirmed.
        unsure: points of ticks interrupted by a kill.
    """

    taken: list[Sampled] = field(default_factory=list)
    unsure: list[Sampled] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Evidence:
        """Reads the side files of programs."""
        found = cls()
        for path in paths:
            # By process, then by run, time and what it is: what fails is tried again.
            ticks: dict[int, dict[tuple[str, int, bool], list[Sampled]]] = {}
            for line in path.read_bytes().splitlines():
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # torn by the kill, before any of its points were taken
                if "taken" in said:
                    found.taken += chain.from_iterable(ticks.pop(said["taken"]).values())
                else:
                    points = said["points"].items()
                    tick = ticks.setdefault(said["pid"], {})
                    tick[said["run"], said["t"], "summary" in said] = [
                        Sampled(said["run"], key, said["t"], one) for key, one in points
                    ]
            for tick in ticks.values():
                found.unsure += chain.from_iterable(tick.values())
        return found

    @property
    def run_ids(self) -> set[str]:
        """The runs with sampled points."""
        return {point.run_id for point in chain(self.taken, self.unsure)}
