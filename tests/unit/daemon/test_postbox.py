"""What a program writes of its own: taken by the sampler, on disk, then on its way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fakes import STARTED_AT, FakeClock, FakeSink
from mlflow_sysmetrics.daemon.delivery.inbox import Channel, Inbox
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import POINTS_DROPPED, RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.daemon.journal.run_backing import OwnRun
from mlflow_sysmetrics.daemon.journal.scan import unsettled


class Bench:
    """A postbox whose sampler is the test."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.woken = 0
        self.sink = FakeSink()
        self.journal = ProcessJournal(
            lambda: Journal.create(directory, 1_000_000, monotonic=self.clock.monotonic), self.clock
        )
        self.sender = Sender("uri", lambda _: self.sink, self.clock, jitter=lambda: 1.0, journal=self.journal)
        self.postbox = Inbox(self.clock, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def lane(self, run_id: str = "run") -> Channel:
        backing = OwnRun(self.journal, run_id, "uri", None)
        return Channel(self.sender, RunQueue(run_id, None, 10, backing))

    def send(self) -> None:
        self.clock.move(20)
        while self.sender.send_next():
            self.sender.tidy()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def losses(*steps: int) -> list[Point]:
    return [Point("train/loss_step", 1 / step, STARTED_AT + step, step) for step in steps]


def test_points_are_taken_a_second_after_the_first_and_the_sampler_is_woken_once(bench: Bench) -> None:
    lane = bench.lane()
    assert math.isinf(bench.postbox.due_at)
    due_at = bench.clock.monotonic() + 1
    for step in range(1, 100):
        bench.postbox.put(lane, losses(step))
        bench.clock.move(0.001)
    assert bench.postbox.due_at == due_at
    assert bench.woken == 1
    bench.postbox.collect()
    assert lane.outbox.waiting == 99
    assert math.isinf(bench.postbox.due_at)


def test_a_thousand_points_are_taken_at_once(bench: Bench) -> None:
    lane = bench.lane()
    for step in range(1, 1001):
        bench.postbox.put(lane, losses(step))
    assert bench.postbox.due_at == bench.clock.monotonic()
    assert bench.woken == 2


def test_what_is_sent_has_the_steps_that_were_given_and_asks_for_no_start(bench: Bench) -> None:
    lane = bench.lane()
    bench.postbox.put(lane, [*losses(5, 7), Point("train/loss_step", math.nan, STARTED_AT, 9)])
    bench.postbox.collect()
    bench.send()
    assert [batch.steps for batch in bench.sink.batches] == [[5, 7, 9]]
    assert math.isnan(bench.sink.points("run")[-1].value)
    assert bench.sink.asked == []


def test_a_point_without_a_step_has_the_seconds_since_the_run_started(bench: Bench) -> None:
    lane = bench.lane()
    bench.postbox.put(lane, [Point("system/cpu_percent", 1.0, STARTED_AT + 4200), *losses(3)])
    bench.postbox.collect()
    bench.send()
    assert [batch.steps for batch in bench.sink.batches] == [[4, 3]]
    assert bench.sink.asked == ["run"]


def test_points_are_on_disk_before_they_are_on_their_way(bench: Bench) -> None:
    lane = bench.lane()
    written = [*losses(1, 2), *losses(2), Point("train/loss_step", math.inf, STARTED_AT, 3)]
    bench.postbox.put(lane, written)
    bench.postbox.collect()
    assert bench.journal.path is not None
    found = list(unsettled(bench.journal.path, 0))
    assert [point for _, point in found] == written
    assert [index for index, _ in found] == [0, 1, 2, 3]
    assert lane.outbox.unsaved == 0
    bench.send()
    assert list(unsettled(bench.journal.path, 0)) == []


def test_a_waiter_is_told_when_all_that_was_put_before_is_on_its_way(bench: Bench) -> None:
    first, second = bench.lane("first"), bench.lane("second")
    bench.postbox.put(first, losses(1))
    done = bench.postbox.hasten(ending=second)
    assert not done.is_set()
    assert bench.postbox.due_at == bench.clock.monotonic()
    bench.postbox.collect()
    assert done.is_set()
    assert first.outbox.waiting == 1


def test_what_a_sampler_that_is_held_up_cannot_take_is_counted(bench: Bench) -> None:
    lane = bench.lane()
    for _ in range(101):
        bench.postbox.put(lane, losses(*range(1, 1001)))
    bench.postbox.collect()
    assert lane.outbox.appended == 100_000
    assert lane.outbox.tags == {POINTS_DROPPED: "1000"}
    assert bench.sender.counts().dropped == 1000
    bench.postbox.put(lane, losses(1))  # there is room again
    bench.postbox.collect()
    assert lane.outbox.appended == 100_001


def test_what_comes_for_a_run_that_is_gone_is_given_up(bench: Bench) -> None:
    lane = bench.lane()
    lane.outbox.refused = "no such run"
    bench.postbox.put(lane, losses(1))
    bench.postbox.collect()
    assert lane.outbox.empty
