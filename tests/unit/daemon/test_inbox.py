"""The program's own points: collected by the sampler, written to disk, then queued."""

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
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.scan import unacknowledged


class Bench:
    """An inbox whose sampler is the test."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.woken = 0
        self.sink = FakeSink()
        self.journal = ProcessJournal(
            lambda: Journal.create(directory, 1_000_000, monotonic=self.clock.monotonic), self.clock
        )
        self.sender = Sender("uri", lambda _: self.sink, self.clock, jitter=lambda: 1.0, journal=self.journal)
        self.inbox = Inbox(self.clock, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def channel(self, run_id: str = "run") -> Channel:
        run_journal = ProcessRunJournal(self.journal, run_id, "uri", None)
        return Channel(self.sender, RunQueue(run_id, None, 10, run_journal))

    def send(self) -> None:
        self.clock.move(20)
        while self.sender.send_next():
            self.sender.tidy()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def losses(*steps: int) -> list[Point]:
    return [Point("train/loss_step", 1 / step, STARTED_AT + step, step) for step in steps]


def test_points_are_collected_a_second_after_the_first_with_one_wake_up(bench: Bench) -> None:
    channel = bench.channel()
    assert math.isinf(bench.inbox.due_at)
    due_at = bench.clock.monotonic() + 1
    for step in range(1, 100):
        bench.inbox.put(channel, losses(step))
        bench.clock.move(0.001)
    assert bench.inbox.due_at == due_at
    assert bench.woken == 1
    bench.inbox.collect()
    assert channel.queue.waiting == 99
    assert math.isinf(bench.inbox.due_at)


def test_a_thousand_points_are_collected_at_once(bench: Bench) -> None:
    channel = bench.channel()
    for step in range(1, 1001):
        bench.inbox.put(channel, losses(step))
    assert bench.inbox.due_at == bench.clock.monotonic()
    assert bench.woken == 2


def test_given_steps_are_sent_and_the_run_start_is_not_requested(bench: Bench) -> None:
    channel = bench.channel()
    bench.inbox.put(channel, [*losses(5, 7), Point("train/loss_step", math.nan, STARTED_AT, 9)])
    bench.inbox.collect()
    bench.send()
    assert [batch.steps for batch in bench.sink.batches] == [[5, 7, 9]]
    assert math.isnan(bench.sink.points("run")[-1].value)
    assert bench.sink.asked == []


def test_a_point_without_a_step_has_the_seconds_since_the_run_started(bench: Bench) -> None:
    channel = bench.channel()
    bench.inbox.put(channel, [Point("system/cpu_percent", 1.0, STARTED_AT + 4200), *losses(3)])
    bench.inbox.collect()
    bench.send()
    assert [batch.steps for batch in bench.sink.batches] == [[4, 3]]
    assert bench.sink.asked == ["run"]


def test_points_are_on_disk_before_they_are_queued(bench: Bench) -> None:
    channel = bench.channel()
    written = [*losses(1, 2), *losses(2), Point("train/loss_step", math.inf, STARTED_AT, 3)]
    bench.inbox.put(channel, written)
    bench.inbox.collect()
    assert bench.journal.path is not None
    found = list(unacknowledged(bench.journal.path, 0))
    assert [point for _, point in found] == written
    assert [index for index, _ in found] == [0, 1, 2, 3]
    assert channel.queue.unsaved == 0
    bench.send()
    assert list(unacknowledged(bench.journal.path, 0)) == []


def test_expedite_signals_when_all_earlier_points_are_queued(bench: Bench) -> None:
    first, second = bench.channel("first"), bench.channel("second")
    bench.inbox.put(first, losses(1))
    done = bench.inbox.expedite(ending=second)
    assert not done.is_set()
    assert bench.inbox.due_at == bench.clock.monotonic()
    bench.inbox.collect()
    assert done.is_set()
    assert first.queue.waiting == 1


@pytest.mark.heavy
def test_points_beyond_the_inbox_limit_are_counted_as_dropped(bench: Bench) -> None:
    channel = bench.channel()
    thousand = losses(*range(1, 1001))
    for _ in range(101):
        bench.inbox.put(channel, thousand)
    bench.inbox.collect()
    assert channel.queue.appended == 100_000
    assert channel.queue.tags == {POINTS_DROPPED: "1000"}
    assert bench.sender.counts().dropped == 1000
    bench.inbox.put(channel, losses(1))  # there is room again
    bench.inbox.collect()
    assert channel.queue.appended == 100_001


def test_points_for_a_rejected_run_are_given_up(bench: Bench) -> None:
    channel = bench.channel()
    channel.queue.refuse("no such run")
    bench.inbox.put(channel, losses(1))
    bench.inbox.collect()
    assert channel.queue.empty


def test_points_that_could_not_be_handed_over_are_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a MemoryError: nothing that a program wrote is forgotten, nor who waits for it."""
    broken, other = bench.channel("broken"), bench.channel("other")
    bench.inbox.put(broken, losses(1, 2))
    bench.inbox.put(other, losses(3))
    done = bench.inbox.expedite(ending=other)

    def fail(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(broken, "put", fail)
        with pytest.raises(MemoryError):
            bench.inbox.collect()
    assert not done.is_set()
    bench.inbox.put(broken, losses(4))
    assert bench.inbox.due_at == bench.clock.monotonic()
    bench.inbox.collect()
    assert done.is_set()
    bench.send()
    assert [point.step for point in bench.sink.points("broken")] == [1, 2, 4]
    assert [point.step for point in bench.sink.points("other")] == [3]


def test_a_channel_that_fails_twice_loses_its_points_and_holds_up_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = bench.channel("broken"), bench.channel("other")
    bench.inbox.put(broken, losses(1, 2))
    bench.inbox.put(other, losses(3))

    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(broken, "put", fail)
    with pytest.raises(MemoryError):
        bench.inbox.collect()
    bench.inbox.collect()
    bench.send()
    assert [point.step for point in bench.sink.points("other")] == [3]
    assert bench.sender.counts().dropped == 2
