"""What a program sampled, by its own testimony: a file that says more than the journal under test.

`record` is called by the program. Around every `RunSeries.emit` it writes two lines into a side file: before, which
points are about to be taken; after, that they have been. So whatever moment a program is killed at, what it
owes lies between the two: all that was taken, and at most the one tick that was under way. A forked child
that samples writes into the same file, under its own process number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

# Families whose metrics are levels and rates only. A total counts from the run's first point, which would have
# to be computed here once more.
COLLECTORS = "cpu,disk"


class Sampled(NamedTuple):
    """One point as the program took it; the server adds a step."""

    run_id: str
    key: str
    timestamp: int
    value: float


def record(path: str) -> None:
    """Has this program write down what it samples from now on."""
    from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
    from mlflow_sysmetrics.daemon.sampling.window import DECIMALS, Value
    from mlflow_sysmetrics.samples import TOTALS

    side = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    emit, write = RunSeries.emit, os.write  # a program may spoil what we do not want spoiled here

    def recorded(self: RunSeries, values: Iterable[Value], timestamp: int) -> None:
        taken = list(values)
        run_id = self.key[1]
        for value in taken:
            assert value.kind not in TOTALS, f"{value.key} is a total"
        points = {f"system/{key}": round(value, DECIMALS) for key, _, value in taken}
        pid = os.getpid()
        tick = {"pid": pid, "run": run_id, "t": timestamp, "points": points}
        write(side, (json.dumps(tick) + "\n").encode())
        emit(self, taken, timestamp)
        write(side, b'{"taken": %d}\n' % pid)

    RunSeries.emit = recorded  # type: ignore[method-assign]


@dataclass
class Evidence:
    """What one or more programs said.

    Attributes:
        taken: points that were certainly taken.
        unsure: points of ticks that a kill interrupted.
    """

    taken: list[Sampled] = field(default_factory=list)
    unsure: list[Sampled] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Evidence:
        """Returns what programs wrote down, one file each."""
        found = cls()
        for path in paths:
            ticks: dict[int, list[Sampled]] = {}
            for line in path.read_bytes().splitlines():
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # torn by the kill, before anything of it was taken
                if "taken" in said:
                    found.taken += ticks.pop(said["taken"])
                else:
                    points = said["points"].items()
                    ticks[said["pid"]] = [Sampled(said["run"], key, said["t"], one) for key, one in points]
            found.unsure += chain.from_iterable(ticks.values())
        return found

    @property
    def run_ids(self) -> set[str]:
        """Runs that anything was sampled for."""
        return {point.run_id for point in chain(self.taken, self.unsure)}
