"""A disk that does not answer: only the journal's thread waits for it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import STARTED_AT, FakeClock, FakeSink
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.scan import scan, unacknowledged
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.window import Value
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.samples import Kind
from mlflow_sysmetrics.settings import Settings

URI = "http://server:5000"
LONGEST = 30.0  # for things that come at once, on a busy machine


class Disk:
    """Answers while `answers` is set, and late if it has a clock."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0
        self.late_seconds = 0.0
        self.clock: FakeClock | None = None

    def write(self, descriptor: int, text: bytes) -> int:
        self.asked += 1
        if self.clock is not None:
            self.clock.move(self.late_seconds)
        assert self.answers.wait(LONGEST)
        return os.write(descriptor, text)


class Process:
    """A sampler and a sender, moved by hand, and the journal's thread."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.clock = FakeClock()
        self.sink = FakeSink()
        self.thread = JournalThread(self.clock, wait_seconds=LONGEST)
        self.journal = ProcessJournal(
            lambda: Journal.create(directory, 1_000_000, monotonic=self.clock.monotonic, write=disk.write),
            self.clock,
            thread=self.thread,
        )
        self.sender = Sender(URI, lambda _: self.sink, self.clock, jitter=lambda: 1.0, journal=self.journal)
        self.series = self.new_series("run")

    def new_series(self, run_id: str) -> RunSeries:
        queue = RunQueue(run_id, STARTED_AT, 10, ProcessRunJournal(self.journal, run_id, URI, STARTED_AT))
        return RunSeries((URI, run_id), Settings(resolution="constant"), Channel(self.sender, queue))

    def emit(self, series: RunSeries | None = None) -> None:
        (series or self.series).emit([Value("level", Kind.GAUGE, 1.0)], self.clock.wall())
        self.clock.move(10)

    def send(self) -> None:
        while self.sender.send_next():
            self.sender.tidy()
        self.sender.tidy()
        self.sender.log_messages()

    def await_written(self) -> None:
        """Waits until the thread has done all its jobs."""
        done = threading.Event()
        self.thread.submit(done, done.set)
        assert done.wait(LONGEST)

    def stick(self, disk: Disk) -> None:
        """Makes the disk stop answering, and the sampler notice."""
        disk.answers.clear()
        self.thread._budget.seconds = 0.05
        self.emit()

    @property
    def path(self) -> Path:
        assert self.journal.path is not None
        return self.journal.path


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.answers.set()


@pytest.fixture
def process(tmp_path: Path, disk: Disk) -> Process:
    made = Process(tmp_path, disk)
    made.emit()
    return made


def waiting(process: Process, run: int = 0) -> list[int]:
    return [index for index, _ in unacknowledged(process.path, run)]


def test_a_point_is_on_disk_when_the_sampler_continues(process: Process) -> None:
    assert waiting(process) == [0]
    assert process.series.channel.queue.unsaved == 0


def test_a_disk_that_does_not_answer_leaves_points_in_memory_only(process: Process, disk: Disk) -> None:
    process.stick(disk)
    process.emit()
    assert process.series.channel.queue.waiting == 3
    assert process.series.channel.queue.unsaved == 2


def test_a_stuck_disk_is_not_tried_again(process: Process, disk: Disk) -> None:
    process.stick(disk)
    asked = disk.asked
    process.thread._budget.seconds = LONGEST  # a wait would now take long
    process.emit()
    assert disk.asked == asked
    assert process.series.channel.queue.waiting == 3


def test_a_disk_that_does_not_answer_delays_no_delivery(process: Process, disk: Disk) -> None:
    process.stick(disk)
    process.send()
    process.emit()
    process.series.end()
    process.clock.move(60)
    process.send()
    assert len(process.sink.points("run")) == 3


def test_a_first_point_is_delivered_although_its_journal_cannot_be_created(
    tmp_path: Path, disk: Disk
) -> None:
    process = Process(tmp_path, disk)
    process.stick(disk)
    process.clock.move(60)
    process.send()
    assert len(process.sink.points("run")) == 1


def test_points_are_saved_again_when_the_disk_answers_and_delivered_ones_do_not_wait(
    process: Process, disk: Disk
) -> None:
    process.stick(disk)
    process.clock.move(60)
    process.send()
    disk.answers.set()
    process.thread._budget.seconds = LONGEST
    process.await_written()
    process.sink.down = True
    process.emit()
    assert waiting(process) == [2]
    assert process.series.channel.queue.unsaved == 0


def test_points_appended_too_late_are_acknowledged_with_the_rest(process: Process, disk: Disk) -> None:
    process.sink.down = True
    process.stick(disk)
    disk.answers.set()
    process.await_written()
    assert waiting(process) == [0, 1]
    process.sink.down = False
    process.clock.move(60)
    process.send()
    process.await_written()
    assert waiting(process) == []


def test_ends_and_acknowledgements_wait_for_the_disk_once_per_run(process: Process, disk: Disk) -> None:
    process.stick(disk)
    for _ in range(20):
        process.emit()
        process.clock.move(60)
        process.send()
    process.series.end()
    for number in range(20):  # runs that the journal has never heard of
        other = process.new_series(str(number))
        process.emit(other)
        other.end()
        process.clock.move(60)
        process.send()
    assert len(process.thread._later) <= 3  # the end and the acknowledgement of one run, and a clearing
    disk.answers.set()
    process.await_written()
    assert all(run.ended and run.acknowledged == run.appended for run in scan(process.path))


def test_ending_with_a_stuck_disk_logs_nothing_and_does_not_wait(process: Process, disk: Disk) -> None:
    process.stick(disk)
    process.clock.move(60)
    process.send()
    assert process.journal.delete_when_empty()
    process.sender.tidy()
    assert not process.journal.deleted.is_set()
    disk.answers.set()
    assert process.journal.deleted.wait(LONGEST)
    assert not process.path.exists()


def test_a_stuck_disk_is_logged_once_and_its_answer_once(
    process: Process, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    process.stick(disk)
    for _ in range(3):
        process.emit()
        process.send()
    assert process.journal.failed == "the disk has not answered for 40 s"
    disk.answers.set()
    process.await_written()
    process.send()
    assert process.journal.failed is None
    assert [record.message.removeprefix("mlflow-sysmetrics: ") for record in caplog.records] == [
        "System metrics are kept in memory only, not on disk: the disk has not answered for 20 s.",
        f"System metrics are journalled again in {process.path}.",
    ]


def test_a_sender_does_not_read_from_a_stuck_disk(process: Process, disk: Disk) -> None:
    process.stick(disk)
    run_journal = process.series.channel.queue.run_journal
    assert run_journal is not None
    with pytest.raises(OSError, match="not answered for 10 s"):
        run_journal.read(0, 0, 1)


def test_a_job_that_raises_leaves_the_thread_alive() -> None:
    def fail() -> None:
        raise RuntimeError("a lock of somebody else's")

    thread = JournalThread(FakeClock(), wait_seconds=LONGEST)
    assert thread.call(fail) is None
    assert thread.call(lambda: 1) == 1


def test_without_a_thread_the_caller_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    monkeypatch.setattr("mlflow_sysmetrics.runtime.loops.start_thread", fail)
    assert JournalThread(FakeClock()).call(lambda: 1) == 1


def test_points_of_a_tick_that_has_used_up_its_wait_stay_in_memory(process: Process, disk: Disk) -> None:
    disk.late_seconds = 0.6
    process.thread._budget.seconds = 1.0
    disk.clock = process.clock
    all_series = [process.new_series(str(number)) for number in range(5)]
    for series in all_series:
        series.emit([Value("level", Kind.GAUGE, 1.0)], process.clock.wall())
    assert [series.channel.queue.unsaved for series in all_series] == [0, 0, 1, 1, 1]


def test_a_disk_that_is_repeatedly_slow_is_logged_once(
    process: Process, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.clock, disk.late_seconds = process.clock, 1.5
    process.thread._budget.seconds = 1.0
    for _ in range(5):
        process.emit()
        process.send()
        process.await_written()
    assert ["the disk has been too slow for" in record.message for record in caplog.records] == [True]


def test_in_a_journal_created_late_earlier_deliveries_do_not_wait(tmp_path: Path, disk: Disk) -> None:
    process = Process(tmp_path / "a file", disk)
    (tmp_path / "a file").touch()
    process.emit()
    process.clock.move(60)
    process.send()
    assert len(process.sink.points("run")) == 1
    (tmp_path / "a file").unlink()
    process.sink.down = True
    process.emit()
    assert [(run.acknowledged, run.appended) for run in scan(process.path)] == [(1, 2)]


def test_a_look_that_fails_does_not_keep_the_caller_waiting() -> None:
    thread = JournalThread(FakeClock(), wait_seconds=LONGEST)
    paused = threading.Event()

    def look() -> float:
        raise RuntimeError("a fault")

    thread.look = look
    assert thread.look_within(LONGEST)  # starts the thread
    assert thread.loop is not None
    thread.loop._pause = lambda _: paused.wait(2 * LONGEST)
    assert thread.call(lambda: "written") == "written", "although the thread pauses"
    assert not paused.is_set()
    paused.set()
