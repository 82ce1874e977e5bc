"""Points survive the death of a process and a full memory: a sender on a real journal, without threads."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fakes import STARTED_AT, FakeClock, FakeSink, run_refused
from mlflow_sysmetrics.daemon.delivery.inbox import Channel, PointBuffer
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.journal import run_journal
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.daemon.journal.recovery import replay
from mlflow_sysmetrics.daemon.journal.run_journal import ProcessRunJournal
from mlflow_sysmetrics.daemon.journal.scan import scan, unacknowledged
from mlflow_sysmetrics.daemon.journal.spool import claim
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.window import Value
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.samples import Kind
from mlflow_sysmetrics.settings import Settings

URI = "http://server:5000"
SERIES = 24


class Process:
    """One process: a journal, a sender and series, moved by hand."""

    def __init__(self, directory: Path, *, megabytes: float = 64, **bounds: int) -> None:
        self.clock = FakeClock()
        self.sink = FakeSink()
        self.directory = directory
        self.bytes = int(megabytes * 1e6)
        self.memory = MemoryBudget(**({"in_flight": 0} | bounds))
        self.journal = ProcessJournal(self.create, self.clock)
        self.sender = Sender(
            URI,
            lambda _: self.sink,
            self.clock,
            jitter=lambda: 1.0,
            memory=self.memory,
            journal=self.journal,
        )
        self.keys = [f"series_{n}_megabytes" for n in range(SERIES)]

    def create(self) -> Journal:
        return Journal.create(self.directory, self.bytes, monotonic=self.clock.monotonic)

    def series(self, run_id: str = "run", buffer: PointBuffer | None = None) -> RunSeries:
        queue = RunQueue(run_id, STARTED_AT, 10, ProcessRunJournal(self.journal, run_id, URI, STARTED_AT))
        return RunSeries((URI, run_id), Settings(resolution="constant"), Channel(self.sender, queue, buffer))

    def emit(self, series: RunSeries, ticks: int = 1, *, seconds: float = 10) -> None:
        for _ in range(ticks):
            values = [Value(key, Kind.GAUGE, series.channel.queue.appended / 7) for key in self.keys]
            series.emit(values, self.clock.wall())
            self.clock.move(seconds)

    def send(self) -> None:
        while self.sender.send_next():
            self.sender.tidy()
        self.sender.tidy()
        self.sender.log_messages()

    @property
    def path(self) -> Path:
        assert self.journal.path is not None
        return self.journal.path

    def fail_disk(self) -> None:
        def fail(*_: object) -> int:
            raise OSError(28, "No space left on device")

        journal = self.journal.available()
        assert journal is not None
        journal._file._system_write = fail

    def die(self) -> None:
        journal = self.journal.available()
        assert journal is not None
        journal.close(delete=False)

    def on_disk(self, run: int = 0) -> list[Point]:
        return [point for _, point in unacknowledged(self.path, run)]


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_a_point_is_on_disk_before_it_is_sent(process: Process) -> None:
    series = process.series()
    process.emit(series)
    assert len(process.on_disk()) == SERIES
    assert not process.sink.batches


def test_delivered_points_are_acknowledged_and_the_journal_is_emptied_once_it_has_grown(
    process: Process,
) -> None:
    series = process.series()
    largest = 0
    for _ in range(80):
        process.emit(series)
        series.channel.queue.make_due(process.clock.monotonic())
        process.send()
        assert process.on_disk() == []
        size = process.path.stat().st_size
        if size < largest / 10:
            break
        largest = size
    else:
        pytest.fail("it was never emptied")
    assert largest > 60_000  # not at each send: that would be one more access of the disk per window


def test_the_journal_is_emptied_when_the_last_run_ends(process: Process) -> None:
    series = process.series()
    process.emit(series, 3)
    size = process.path.stat().st_size
    series.end()
    process.send()
    assert process.on_disk() == []
    assert process.path.stat().st_size < size / 10


def test_a_run_continues_in_an_emptied_journal(process: Process) -> None:
    series = process.series()
    process.emit(series, 3)
    process.send()
    process.sink.down = True
    process.emit(series, 2)
    process.send()
    assert len(process.on_disk()) == 2 * SERIES
    process.sink.down = False
    process.clock.move(60)
    process.send()
    assert len(process.sink.points("run")) == 5 * SERIES


def test_points_beyond_the_memory_budget_are_read_back_from_disk(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=5 * SERIES)
    process.sink.down = True
    all_series = [process.series("a"), process.series("b")]
    for _ in range(100):
        for series in all_series:
            process.emit(series, seconds=5)
    assert sum(series.channel.queue.buffered for series in all_series) <= 6 * SERIES
    assert process.sender.counts().pending == 200 * SERIES
    process.sink.down = False
    process.send()
    for series in all_series:
        sent = process.sink.points(series.channel.queue.run_id)
        assert len(sent) == 100 * SERIES
        assert len(set(sent)) == len(sent)
        assert sent == sorted(sent, key=lambda point: point.timestamp)
    counts = process.sender.counts()
    assert (counts.pending, counts.unsaved, counts.dropped) == (0, 0, 0)


def test_after_catching_up_points_wait_in_memory_again(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=SERIES)
    series = process.series()
    process.sink.down = True
    process.emit(series, 10)
    process.sink.down = False
    process.send()
    process.emit(series)
    assert series.channel.queue.buffered == SERIES


def test_points_that_arrive_during_a_read_back_keep_their_order(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=SERIES)
    series = process.series()
    process.emit(series, 60)
    for _ in range(60):
        process.emit(series, seconds=1)
        process.sender.send_next()
    process.clock.move(20)
    process.send()
    assert [point.timestamp for point in process.sink.points("run")] == sorted(
        point.timestamp for point in process.sink.points("run")
    )
    assert len(set(process.sink.points("run"))) == 120 * SERIES


def test_a_failing_disk_loses_no_point_while_memory_lasts(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Journal:
        raise JournalUnavailable("no space")

    process.journal._create = fail
    process.sink.down = True
    series = process.series()
    process.emit(series, 3)
    process.send()
    assert process.sender.counts().unsaved == 3 * SERIES
    process.journal._create = process.create
    process.clock.move(60)
    process.emit(series, 3)
    process.send()
    assert (process.sender.counts().unsaved, len(process.on_disk())) == (3 * SERIES, 3 * SERIES)
    process.sink.down = False
    process.clock.move(60)
    process.send()
    assert len(set(process.sink.points("run"))) == 6 * SERIES
    said = [record.message for record in caplog.records if "memory only" in record.message]
    assert said == ["mlflow-sysmetrics: System metrics are kept in memory only, not on disk: no space."]


def test_a_rejected_run_leaves_nothing_to_deliver(process: Process) -> None:
    series = process.series()
    process.emit(series, 2)
    process.sink.failures = [run_refused("deleted")]
    process.send()
    process.emit(series, 2)
    assert process.on_disk() == []
    assert process.sender.counts().dropped == 2 * SERIES


def test_a_full_journal_thins_the_oldest_points_and_the_run_is_tagged(tmp_path: Path) -> None:
    process = Process(tmp_path, megabytes=0.1, buffered=SERIES)
    process.sink.down = True
    series = process.series()
    process.emit(series)
    for _ in range(300):
        process.emit(series)
        process.sender.tidy()
    assert process.path.stat().st_size <= 100_000
    process.sink.down = False
    process.send()
    sent = process.sink.points("run")
    dropped = process.sender.counts().dropped
    assert dropped > 0
    assert len(sent) + dropped == 301 * SERIES
    tags = {key: value for batch in process.sink.batches for key, value in batch.tags.items()}
    assert tags == {"sysmetrics.points_dropped": str(dropped)}
    assert sent[-1].timestamp == process.clock.wall() - 10_000


@pytest.mark.parametrize("sent", [0, 1])
def test_thinned_points_of_a_dead_process_are_counted_once(sent: int, tmp_path: Path) -> None:
    """No matter how many of the gaps the dying process itself has found and counted."""
    process = Process(tmp_path, megabytes=0.1, buffered=1)
    process.sink.down = True
    series = process.series()
    for _ in range(300):
        process.emit(series)
        process.sender.tidy()
    process.sink.down = False
    process.clock.move(60)
    for _ in range(sent):
        assert process.sender.send_next()
    delivered = process.sink.points("run")
    process.die()
    journal, sink = claim(process.path), FakeSink()
    assert journal is not None
    replay(journal, lambda _: sink)
    missing = 300 * SERIES - len({*delivered, *sink.points("run")})
    tags = {key: value for batch in sink.batches for key, value in batch.tags.items()}
    assert missing > 0
    assert tags["sysmetrics.points_dropped"] == str(missing)


def test_full_memory_drops_no_point_that_is_on_disk(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=5 * SERIES, unsaved=20 * SERIES)
    process.sink.down = True
    series = process.series()
    process.emit(series, 4)
    process.send()
    process.fail_disk()
    process.emit(series, 40)
    counts = process.sender.counts()
    assert (counts.pending, counts.unsaved, counts.dropped) == (24 * SERIES, 20 * SERIES, 20 * SERIES)
    process.sink.down = False
    process.send()
    moments = {point.timestamp - STARTED_AT for point in process.sink.points("run")}
    assert sorted(moments) == [tick * 10_000 for tick in (*range(4), *range(24, 44))]


def test_a_journal_deleted_while_in_use_loses_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=SERIES)
    process.sink.down = True
    series = process.series()
    process.emit(series, 3)
    process.path.unlink()
    process.emit(series, 3)
    process.sink.down = False
    process.send()
    counts = process.sender.counts()
    assert (counts.delivered, counts.pending, counts.dropped) == (6 * SERIES, 0, 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file")
def test_spilled_points_survive_the_deletion_of_the_spool_directory(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=SERIES)
    series = process.series()
    process.emit(series, 4)
    process.path.unlink()
    process.send()
    counts = process.sender.counts()
    assert (counts.delivered, counts.pending, counts.dropped) == (4 * SERIES, 0, 0)


def test_an_unreadable_journal_is_retried_and_loses_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(tmp_path, buffered=SERIES)
    series = process.series()
    process.emit(series, 4)

    def fail(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "read", fail)
        process.send()
        process.clock.move(1)
        process.send()
        counts = process.sender.counts()
        assert (counts.pending, counts.dropped) == (3 * SERIES, 0)
        assert counts.last_error == "the journal cannot be read: No such file or directory"
    process.clock.move(60)
    process.send()
    assert len(process.sink.points("run")) == 4 * SERIES
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "run run wait on disk, and the journal cannot be read: No such file" in warnings[0]


def test_an_unreadable_journal_delays_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path, buffered=SERIES)
    process.emit(process.series("spilled"), 4)
    process.emit(process.series("held"))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Journal, "read", fail)
    process.send()
    process.emit(process.series("later"))
    process.clock.move(10)
    process.sender.send_next()
    process.send()
    assert process.sink.points("later")


def test_points_lost_by_the_disk_are_counted(tmp_path: Path) -> None:
    process = Process(tmp_path, buffered=SERIES)
    series = process.series()
    process.emit(series, 4)
    process.path.write_bytes(b"")
    process.send()
    counts = process.sender.counts()
    assert (counts.delivered, counts.pending, counts.dropped) == (SERIES, 0, 3 * SERIES)
    assert process.sink.batches[-1].tags == {"sysmetrics.points_dropped": str(3 * SERIES)}


def test_the_end_of_a_run_is_journalled(process: Process) -> None:
    process.sink.down = True
    series = process.series()
    process.emit(series)
    assert [run.ended for run in scan(process.path)] == [False]
    series.end()
    assert [run.ended for run in scan(process.path)] == [True]


def test_a_process_that_has_delivered_everything_leaves_no_journal(process: Process) -> None:
    series = process.series()
    process.emit(series, 2)
    process.send()
    assert process.journal.delete_when_empty()
    process.sender.tidy()
    assert process.journal.deleted.is_set()
    assert not list(process.directory.iterdir())


def test_a_process_with_undelivered_points_leaves_its_journal(process: Process) -> None:
    process.sink.down = True
    process.emit(process.series())
    process.send()
    process.journal.delete_when_empty()
    process.sender.tidy()
    assert len(process.on_disk()) == SERIES


@pytest.mark.heavy
def test_a_long_outage_does_not_grow_the_memory(tmp_path: Path) -> None:
    """Eight runs at the default rate fill the memory in a quarter of an hour, and from then on the disk."""
    process = Process(tmp_path)
    process.sink.down = True
    all_series = [process.series(str(n)) for n in range(8)]

    def an_hour_passes() -> int:
        for _ in range(360 // 3):
            for series in all_series:
                process.emit(series, seconds=0)
            process.clock.move(30)
            process.send()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        began = tracemalloc.get_traced_memory()[0]
        first, second = an_hour_passes(), an_hour_passes()
    finally:
        tracemalloc.stop()
    assert process.sender.counts().pending == 2 * 8 * 120 * SERIES
    assert first - began < 5e6
    assert second - first < 0.3e6


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets the run of each read of a journal."""
    reads: list[int] = []
    read = Journal.read

    def counting(journal: Journal, run: int, *arguments: int) -> object:
        reads.append(run)
        return read(journal, run, *arguments)

    monkeypatch.setattr(Journal, "read", counting)
    return reads


def many(process: Process, runs: int, seconds: int) -> None:
    """Gives many runs a point of each series a second, sent every ten seconds by a server that answers."""
    all_series = [process.series(str(number)) for number in range(runs)]
    for _ in range(seconds):
        for series in all_series:
            process.emit(series, seconds=0)
        process.clock.move(1)
        process.send()


def test_nothing_is_read_back_for_a_server_that_takes_its_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs there are: here each second brings more points than the bound of an outage."""
    reads = count_reads(monkeypatch)
    process = Process(tmp_path, buffered=200, unsaved=400, in_flight=1_000_000)
    many(process, 50, 25)
    assert not reads
    assert process.sender.counts().dropped == 0
    process.clock.move(20)
    process.send()
    assert process.sender.counts().delivered == 50 * 25 * SERIES


def test_an_outage_of_many_runs_does_not_grow_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    process = Process(tmp_path, buffered=200, unsaved=400, in_flight=1_000_000)
    process.sink.down = True
    many(process, 50, 25)
    assert process.memory._used <= 400 + 50 * SERIES
    process.sink.down = False
    process.clock.move(100)
    process.send()
    assert reads
    assert process.sender.counts().delivered == 50 * 25 * SERIES
    for number in range(50):
        timestamps = [point.timestamp for point in process.sink.points(str(number))]
        assert timestamps == sorted(timestamps)
        assert len(timestamps) == 25 * SERIES


def test_windows_that_close_together_are_written_with_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path)
    buffer = PointBuffer()
    all_series = [process.series(str(number), buffer) for number in range(20)]
    asked: list[object] = []
    call = process.journal.call
    monkeypatch.setattr(process.journal, "call", lambda job: (asked.append(job), call(job))[1])
    for number in range(2):
        with buffer:
            for series in all_series:
                process.emit(series, seconds=0)
            assert process.sender.counts().pending == number * 20 * SERIES
        process.clock.move(10)
    assert len(asked) == 2
    assert process.sender.counts().pending == 2 * 20 * SERIES
    for number in range(20):
        values = [(point.key, point.value) for point in process.on_disk(number)]
        assert values == [
            (f"system/{key}", round(first / 7, 3)) for first in (0, SERIES) for key in process.keys
        ]


def test_what_is_waited_for_is_the_disk_and_not_the_making_of_lines(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = process.series()
    process.emit(series)  # the first lines are made once the journal has a number for the run
    made: list[bool] = []
    in_job = False
    seal, call = run_journal.sealed_points, process.journal.call

    def called(job: Any) -> Any:
        nonlocal in_job
        in_job = True
        try:
            return call(job)
        finally:
            in_job = False

    def sealed(*arguments: Any) -> bytes:
        made.append(in_job)
        return seal(*arguments)

    monkeypatch.setattr(process.journal, "call", called)
    monkeypatch.setattr(run_journal, "sealed_points", sealed)
    process.emit(series, 2)
    assert made == [False, False]


def test_a_journal_without_room_for_all_takes_what_it_can(tmp_path: Path) -> None:
    process = Process(tmp_path, megabytes=0.012)
    buffer = PointBuffer()
    all_series = [process.series(str(number), buffer) for number in range(20)]
    with buffer:
        for series in all_series:
            process.emit(series, seconds=0)
    assert 0 < process.sender.counts().unsaved < 20 * SERIES
    assert process.sender.counts().pending == 20 * SERIES


def test_a_run_whose_points_cannot_be_queued_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path)
    buffer = PointBuffer()
    bad, good = (process.series(name, buffer) for name in ("bad", "good"))
    append = process.sender.append

    def failing(queue: RunQueue, *arguments: Any, **named: Any) -> bool:
        if queue.run_id == "bad":
            raise MemoryError
        return append(queue, *arguments, **named)

    monkeypatch.setattr(process.sender, "append", failing)
    buffer.__enter__()
    process.emit(bad, seconds=0)
    process.emit(good, seconds=0)
    with pytest.raises(MemoryError):
        buffer.__exit__()
    with buffer:  # as the next step of the sampler
        pass
    counts = process.sender.counts()
    assert (counts.pending, counts.dropped) == (SERIES, SERIES)


def test_the_journal_is_emptied_when_a_caller_waits(process: Process) -> None:
    """As `flush` does: what is on disk afterwards is what has come since."""
    series = process.series()
    process.emit(series, 3)
    size = process.path.stat().st_size
    process.sender.expedite()
    process.send()
    assert process.path.stat().st_size < size / 10
