"""Whatever happens to a journal, every waiting point is still there: exactly, in order, once."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes import FakeClock
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.scan import unacknowledged
from mlflow_sysmetrics.daemon.journal.spool import claim

pytestmark = pytest.mark.heavy

VALUES = st.dictionaries(
    st.text(min_size=1, max_size=4), st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=5
)
Waiting = dict[int, list[tuple[int, Point]]]


@dataclass
class ModelRun:
    """The points that a run should have."""

    appended: int = 0
    acknowledged: int = 0
    on_disk: dict[int, Point] = field(default_factory=dict)

    def waiting(self) -> list[tuple[int, Point]]:
        return [pair for pair in self.on_disk.items() if pair[0] >= self.acknowledged]


class JournalMachine(RuleBasedStateMachine):
    """Drives a journal and a model of it, which is two dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.runs: dict[int, ModelRun] = {}
        self.room: int | None = None
        # Size of the file and the expected contents, after each step since the file was last rewritten.
        self.history: list[tuple[int, Waiting]] = []

    @initialize()
    def start(self) -> None:
        self.journal = Journal.create(
            self.directory, 10_000_000, monotonic=self.clock.monotonic, write=self.write
        )
        self.history = [(0, {})]
        for _ in range(2):
            self.attach()

    def teardown(self) -> None:
        self.journal.close(delete=True)
        shutil.rmtree(self.directory)

    def write(self, descriptor: int, text: bytes) -> int:
        if self.room is None:
            return os.write(descriptor, text)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, text[: self.room])
        self.room -= written
        return written

    def pick(self, data: st.DataObject) -> tuple[int, ModelRun]:
        number = data.draw(st.sampled_from(sorted(self.runs)))
        return number, self.runs[number]

    @rule()
    def attach(self) -> None:
        number = self.journal.register(f"run {len(self.runs)}", "http://x", None)
        assert number not in self.runs
        self.runs[number] = ModelRun()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), values=VALUES, timestamp=st.integers(0, 2**45))
    def append(self, data: st.DataObject, values: dict[str, float], timestamp: int) -> None:
        number, run = self.pick(data)
        taken = self.journal.append(number, run.appended, timestamp, values)
        assert taken is not None
        points = [Point(key, value, timestamp) for key, value in values.items()]
        run.on_disk |= dict(enumerate(points, run.appended))
        run.appended += len(points)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), values=VALUES, room=st.integers(0, 60))
    def append_to_a_full_disk(self, data: st.DataObject, values: dict[str, float], room: int) -> None:
        number, run = self.pick(data)
        self.room = room
        if self.journal.append(number, run.appended, 7, values) is not None:
            run.on_disk |= {
                index: Point(key, value, 7) for index, (key, value) in enumerate(values.items(), run.appended)
            }
        self.room = None
        self.clock.move(60)
        # A line that only lacks its newline was not taken, but is readable. That is harmless: it is the point
        # that waits in memory. A reader may see it, so the model does not look below it any more.
        run.appended += len(values)
        if run.appended - 1 not in run.on_disk:
            self.settle(number, run, run.appended)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), and_compact=st.booleans())
    def acknowledge(self, data: st.DataObject, and_compact: bool) -> None:
        number, run = self.pick(data)
        waiting = run.appended - run.acknowledged
        # Hypothesis prefers small numbers: count from the end, so that lines are acknowledged in part.
        left = data.draw(st.integers(0, max(waiting, 0)))
        self.settle(number, run, run.appended - left)
        if and_compact:  # hypothesis by itself rarely compacts when a line is half acknowledged
            self.compact()

    def settle(self, number: int, run: ModelRun, acknowledged: int) -> None:
        self.journal.acknowledge(number, acknowledged)
        run.acknowledged = max(run.acknowledged, acknowledged)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def read_back(self, data: st.DataObject) -> None:
        number, run = self.pick(data)
        found, place, since = [], 0, run.acknowledged
        while part := self.journal.read(number, since, place, data.draw(st.integers(1, 20))):
            points, place = part
            if not points:
                break
            found += points
            since = points[-1][0] + 1
        assert found == run.waiting()

    @rule()
    def clear(self) -> None:
        waits = any(run.waiting() for run in self.runs.values())
        assert self.journal.clear() != waits
        if not waits:
            for run in self.runs.values():
                run.on_disk.clear()
            self.history.clear()

    @rule()
    def compact(self) -> None:
        assert self.journal.compact() == {}
        self.history.clear()

    @rule(torn=st.binary(max_size=30))
    def die_and_be_claimed(self, torn: bytes) -> None:
        self.journal.close(delete=False)
        with self.journal.path.open("ab") as file:
            file.write(torn)
        journal = claim(self.journal.path)
        assert journal is not None
        self.journal = journal
        # Runs without a point are forgotten with their process.
        self.runs = {run.number: self.runs[run.number] for run in journal.runs}

    @rule(data=st.data())
    def be_cut_anywhere(self, data: st.DataObject) -> None:
        """Checks what a crash at any byte would have left."""
        whole = self.journal.path.read_bytes()
        begin = min(self.history[0][0], len(whole)) if self.history else len(whole)
        cut = data.draw(st.integers(begin, len(whole)))
        copy = self.directory / "copy"
        copy.write_bytes(whole[:cut])
        found = {number: list(unacknowledged(copy, number)) for number in self.runs}
        before = [state for size, state in self.history if size <= cut]
        after = [state for size, state in self.history if size > cut]
        # The step at the cut has happened or not; there is nothing in between.
        possible = [*before[-1:], *after[:1]] or [self.waiting()]
        assert found in [{number: state.get(number, []) for number in self.runs} for state in possible]

    @invariant()
    def all_that_waits_is_there(self) -> None:
        found = self.waiting()
        assert {number: list(unacknowledged(self.journal.path, number)) for number in self.runs} == found
        self.history.append((self.journal.path.stat().st_size, found))

    def waiting(self) -> Waiting:
        return {number: run.waiting() for number, run in self.runs.items()}


JournalMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestJournal = JournalMachine.TestCase
