"""Senders of a program with many tracking URIs, and of journals with many dead servers: few threads, nothing lost."""

from __future__ import annotations

import gc
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from fakes import STARTED_AT, FakeSink, scripted
from mlflow_sysmetrics.daemon import process
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.delivery import sender as sender_module
from mlflow_sysmetrics.daemon.delivery import senders as senders_module
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.limits import MemoryBudget
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.senders import OrphanSenders, Senders
from mlflow_sysmetrics.daemon.journal.process_journal import ProcessJournal
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime import loops
from mlflow_sysmetrics.runtime.clock import SystemClock
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.training import MetricRecorder
from watching import LONG_SECONDS, eventually

FAST = Settings(
    sampling_interval=0.1,
    samples_before_logging=1,
    send_interval=0.1,
    flush_timeout=LONG_SECONDS,
    spool_dir="off",
)
POINT = Point("system/x", 1.0, STARTED_AT, 0)


class Bench:
    """Senders with real threads, and a sink for each tracking URI."""

    def __init__(self) -> None:
        self.sinks: dict[str, FakeSink] = {}
        clock = SystemClock()
        self.senders = Senders(self.open, clock, MemoryBudget(), ProcessJournal(None, clock))
        self.orphans = OrphanSenders(self.open, clock)

    def open(self, uri: str) -> FakeSink:
        return self.sinks.setdefault(uri, FakeSink())

    def channel(self, uri: str) -> Channel:
        return self.senders.open_channel(uri, RunQueue("run", STARTED_AT, send_interval=0))

    def deliver(self, uri: str) -> Channel:
        """Delivers one point of a run that then ends."""
        channel = self.channel(uri)
        channel.put([POINT])
        channel.end()
        channel.sender.close(channel.queue)
        return channel


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "_LINGER_SECONDS", 0.0)


def left_behind(run_id: str = "run") -> RunQueue:
    """Returns the queue of a run of a process that died, with one point."""
    queue = RunQueue(run_id, STARTED_AT, 10, replayed=True)
    queue.put([POINT])
    queue.close()
    return queue


def threads(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


@pytest.fixture
def others() -> set[threading.Thread]:
    """Threads of senders of earlier tests."""
    return set(threads(senders_module.THREAD_NAME))


@pytest.mark.heavy
@pytest.mark.usefixtures("short_linger")
def test_many_tracking_uris_one_after_another_leave_no_thread_and_no_sender(
    bench: Bench, others: set[threading.Thread]
) -> None:
    for number in range(100):
        channel = bench.deliver(f"http://server/{number}")
        eventually(lambda channel=channel: channel.sender.is_finished)  # type: ignore[misc]
    assert len(bench.senders.all()) == 1
    assert not set(threads(senders_module.THREAD_NAME)) - others
    assert bench.senders.counts().delivered == 100
    assert len(bench.senders.tracking_uris) <= 65


def test_a_sender_in_use_keeps_its_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "_LINGER_SECONDS", 0.0)
    first, second = bench.channel("uri"), bench.channel("uri")
    assert first.sender is second.sender
    first.put([POINT])
    first.end()
    first.sender.close(first.queue)
    eventually(lambda: bench.senders.counts().delivered == 1)
    assert not first.sender.is_finished, "the other run has not ended"
    bench.channel("another")
    assert bench.channel("uri").sender is second.sender


@pytest.mark.usefixtures("short_linger")
def test_points_after_the_end_of_the_thread_start_another(bench: Bench) -> None:
    channel = bench.deliver("uri")
    eventually(lambda: channel.sender.is_finished)
    channel.sender.append(channel.queue, [POINT], tags={"late": "yes"})
    eventually(lambda: len(bench.sinks["uri"].batches) == 2 and channel.sender.is_finished)
    assert bench.sinks["uri"].batches[1].tags == {"late": "yes"}


@pytest.mark.heavy
@pytest.mark.usefixtures("short_linger")
def test_no_point_is_lost_while_threads_end_and_start(bench: Bench) -> None:
    """The end of a thread and the next point meet as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writers = [
            threading.Thread(target=lambda: [bench.deliver("uri") for _ in range(200)]) for _ in range(3)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    finally:
        sys.setswitchinterval(interval)
    eventually(lambda: bench.senders.counts().pending == 0)
    assert bench.senders.counts().delivered == 600


@pytest.mark.heavy
def test_a_thread_survives_what_is_raised_in_it(bench: Bench) -> None:
    channel = bench.channel("uri")
    send = bench.open("uri").send

    def killed(*_: object) -> None:
        bench.sinks["uri"].send = send  # type: ignore[method-assign]
        raise SystemExit  # as an exception that a debugger or a timeout library raises in a thread

    bench.sinks["uri"].send = killed  # type: ignore[method-assign]
    channel.put([POINT])
    eventually(lambda: bench.sinks["uri"].send == send)
    channel.put([POINT])
    eventually(lambda: bench.senders.counts().delivered == 2)


def test_points_wait_while_no_thread_can_be_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    with monkeypatch.context() as limited:
        limited.setattr(loops, "start_thread", refuse)
        channel = bench.channel("uri")
        channel.put([POINT])
        assert bench.senders.counts().last_error == "no thread can be started"
    channel.put([POINT])
    eventually(lambda: bench.senders.counts().delivered == 2)
    assert bench.senders.counts().last_error is None


def test_points_are_delivered_that_come_when_no_thread_can_be_started_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter of Python 3.12 that ends starts no thread, and a program may end at once."""

    def refuse(*_: object) -> None:
        raise ThreadUnavailable("can't start new thread at interpreter shutdown")

    channel = bench.channel("uri")
    monkeypatch.setattr(loops, "start_thread", refuse)
    channel.put([POINT])
    eventually(lambda: bench.senders.counts().delivered == 1)


def test_a_server_of_the_program_keeps_its_credentials_after_many_others(bench: Bench) -> None:
    used = bench.channel("http://first")
    for number in range(200):
        bench.channel(f"http://other-{number}")
    assert bench.senders.is_in_use("http://first")
    assert "http://first" in bench.senders.tracking_uris
    assert used.sender in bench.senders.all()


def test_many_dead_servers_of_old_journals_share_a_few_threads(bench: Bench) -> None:
    for number in range(50):
        bench.sinks[f"http://dead-{number}"] = FakeSink(down=True)
        bench.orphans.adopt(f"http://dead-{number}", left_behind())
    bench.orphans.adopt("http://good", left_behind())
    eventually(lambda: "http://good" in bench.sinks and bench.sinks["http://good"].points("run"))
    assert bench.orphans._threads <= 4
    for sink in bench.sinks.values():
        sink.down = False
    bench.orphans._clock = bench.senders._clock

    def all_is_sent() -> bool:
        with bench.orphans._changed:
            for sender in bench.orphans._senders.values():  # also of one that has just failed once more
                sender._schedule.answered()
                sender.expedite(list(sender._schedule))
            bench.orphans._changed.notify_all()
        return not bench.orphans._threads

    eventually(all_is_sent)
    assert all(sink.points("run") for sink in bench.sinks.values())
    assert not bench.orphans._senders


def test_hanging_servers_of_old_journals_do_not_keep_the_others_waiting(bench: Bench) -> None:
    answers = threading.Event()
    for number in range(3):
        bench.sinks[f"http://hangs-{number}"] = FakeSink(open=answers)
        bench.orphans.adopt(f"http://hangs-{number}", left_behind())
    for number in range(20):
        bench.orphans.adopt(f"http://good-{number}", left_behind())
    eventually(lambda: sum(bool(sink.points("run")) for sink in list(bench.sinks.values())) == 20)
    answers.set()
    eventually(lambda: not bench.orphans._threads)


def test_an_orphan_does_not_delay_a_live_run_of_its_server(bench: Bench) -> None:
    opened = threading.Event()
    hangs = FakeSink(open=opened)
    bench.orphans._open_sink = lambda _: hangs
    bench.orphans.adopt("uri", left_behind("old"))
    bench.deliver("uri")
    eventually(lambda: bench.open("uri").points("run"))
    assert not hangs.batches
    opened.set()
    eventually(lambda: hangs.points("old"))


def test_a_log_handler_that_raises_does_not_stop_the_delivery_of_orphans(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(sender_module.Sender):
        def log_messages(self) -> None:
            raise ValueError("a handler of the program")

    monkeypatch.setattr(senders_module, "Sender", Broken)
    for uri in ("a", "b"):
        bench.orphans.adopt(uri, left_behind())
    eventually(lambda: all(uri in bench.sinks and bench.sinks[uri].points("run") for uri in ("a", "b")))


@pytest.mark.usefixtures("short_linger")
def test_the_thread_ends_if_the_run_is_closed_after_its_last_delivery(bench: Bench) -> None:
    channel = bench.channel("uri")
    channel.put([POINT])
    channel.end()
    eventually(lambda: channel.queue.empty and channel.sender._wakes_at == math.inf)
    channel.sender.close(channel.queue)
    eventually(lambda: channel.sender.is_finished)


@pytest.mark.usefixtures("short_linger")
def test_a_daemon_counts_what_forgotten_senders_delivered() -> None:
    daemon = Daemon(
        replace(FAST, send_interval=0.1),
        collectors=[scripted(level=1)],
        open_sink=lambda _: FakeSink(),
    )
    for number in range(20):
        daemon.detach(daemon.attach("run", f"uri-{number}", FAST, started_at=STARTED_AT), None)
    eventually(lambda: all(sender.is_finished for sender in daemon._senders.all()))
    last = daemon.attach("run", "last", FAST, started_at=STARTED_AT)
    assert daemon.detach(last, None)
    assert len(daemon._senders.all()) == 1
    assert daemon.status().points_delivered >= 21


@pytest.mark.heavy
@pytest.mark.usefixtures("short_linger")
def test_a_recorder_that_is_never_closed_leaves_nothing_once_it_is_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = Daemon(FAST, collectors=[scripted(level=1)], open_sink=lambda _: FakeSink())
    monkeypatch.setattr(process, "_daemon", daemon)
    for number in range(20):
        recorder = MetricRecorder("run", tracking_uri=f"http://server/{number}")
        recorder.step(1, loss=0.5)
        del recorder
    gc.collect()
    eventually(lambda: all(sender.is_finished for sender in daemon._senders.all()))
    assert daemon.status().points_delivered == 20
    assert not daemon._channels._channels


class Busy(FakeSink):
    """Says when the first request has come."""

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        self.asked.append(run_id)
        super().send(run_id, points, steps, tags)


@pytest.mark.parametrize("close", [False, True])
def test_the_end_of_a_run_waits_for_points_of_recorders_that_have_ended(
    close: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the sender turns to the run's other points first, as when it is late."""
    sink = Busy(open=threading.Event())
    daemon = Daemon(FAST, collectors=[scripted(level=1)], open_sink=lambda _: sink)
    monkeypatch.setattr(process, "_daemon", daemon)
    series = daemon.attach("run", "http://server", FAST, started_at=STARTED_AT)
    eventually(lambda: sink.asked)
    recorder = MetricRecorder("run", tracking_uri="http://server")
    [channel] = daemon._channels.of(series.key)
    recorder.step(1, loss=0.5)
    if close:
        recorder.close(0)
    del recorder
    gc.collect()
    eventually(lambda: channel.queue.waiting == 1)
    channel.queue.make_due(math.inf)
    assert sink.open is not None
    sink.open.set()
    assert daemon.detach(series, LONG_SECONDS)
    assert [point.key for point in sink.points("run")].count("train/loss_step") == 1
    assert not daemon._channels.of(series.key)
