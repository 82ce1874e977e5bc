"""Which thread looks after the others: that of the journal, and another one where that cannot."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import FakeClock, FakeSink, scripted
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.journal.thread import JournalThread
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.daemon.watchdog import Watchdog
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.settings import Settings
from watching import LONG_SECONDS, eventually

WATCHDOG = "sysmetrics-watchdog"


class Bench:
    """A watchdog that counts its looks by thread, and the thread of a journal."""

    def __init__(self, *, threaded: bool = True) -> None:
        self.clock = FakeClock()
        self.journal = JournalThread(self.clock, threaded=threaded, wait_seconds=0.2)
        self.sampler = Sampler([Probe(scripted(level=1), Host())], self.clock)
        self.looks: list[str] = []
        self.left = 5.0
        self.watchdog = Watchdog(self.sampler, self.clock, guard=self.journal)
        self.watchdog.look = self._look  # type: ignore[method-assign]
        self.answers = threading.Event()

    def _look(self) -> float:
        self.looks.append(threading.current_thread().name)
        return self.left

    def looked(self, name: str) -> Callable[[], bool]:
        return lambda: name in self.looks

    def block(self) -> None:
        """Makes the disk stop answering."""
        began = threading.Event()

        def job() -> None:
            began.set()
            assert self.answers.wait(LONG_SECONDS)

        self.journal.submit("stuck", job)
        assert began.wait(LONG_SECONDS)
        self.clock.move(5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.answers.set()


def test_the_thread_of_the_journal_looks(bench: Bench) -> None:
    bench.watchdog.stir()
    eventually(bench.looked("sysmetrics-journal"))
    assert WATCHDOG not in bench.looks


def test_each_request_of_the_sampler_brings_a_look(bench: Bench) -> None:
    bench.watchdog.begin()
    for times in (1, 2, 3):
        assert bench.journal.call(lambda: "written") == "written"
        assert len(bench.looks) == times  # before the sampler goes on


def test_without_requests_it_looks_by_itself(bench: Bench) -> None:
    """The sampler that waits for a source asks for nothing."""
    bench.left = 0.01
    clock = bench.clock
    bench.watchdog.begin()
    assert bench.looks == []
    clock.move(3)
    with bench.journal._changed:
        bench.journal._changed.notify_all()  # in place of the timer: the clock stands still
    eventually(lambda: bench.looks)


def test_while_a_disk_does_not_answer_another_thread_looks(bench: Bench) -> None:
    bench.journal.call(lambda: None)
    bench.looks.clear()
    bench.block()
    bench.watchdog.stir()
    eventually(bench.looked(WATCHDOG))
    bench.answers.set()
    eventually(lambda: not bench.journal.silent_seconds)
    bench.watchdog._stirred.set()
    eventually(lambda: not bench.watchdog._loop.is_alive)  # it is not needed any more
    bench.looks.clear()
    bench.watchdog.stir()
    eventually(bench.looked("sysmetrics-journal"))


def test_a_request_in_vain_has_another_thread_look(bench: Bench) -> None:
    bench.journal.call(lambda: None)
    bench.block()
    assert bench.journal.call(lambda: "late") is None
    eventually(bench.looked(WATCHDOG))


def test_a_journal_whose_thread_has_died_is_not_relied_on(bench: Bench) -> None:
    bench.journal.call(lambda: None)
    loop = bench.journal.loop
    assert loop is not None
    loop._step = lambda: False
    bench.journal.submit("the end", lambda: None)
    eventually(lambda: not loop.is_alive)
    loop._is_wanted = True  # as if it had been killed
    bench.looks.clear()
    bench.watchdog.stir()
    eventually(bench.looked(WATCHDOG))


def test_where_no_thread_can_be_started_the_next_call_tries_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    with monkeypatch.context() as limited:
        limited.setattr("mlflow_sysmetrics.runtime.loops.start_thread", refuse)
        bench.watchdog.stir()
    assert bench.looks == []
    bench.watchdog.stir()
    eventually(lambda: bench.looks)


def test_a_look_that_fails_is_made_again(bench: Bench) -> None:
    calls: list[None] = []

    def look() -> float:
        calls.append(None)
        if len(calls) == 1:
            raise MemoryError
        return 5.0

    bench.watchdog.look = look  # type: ignore[method-assign]
    assert bench.journal.call(lambda: "written") == "written"
    eventually(lambda: calls)
    bench.clock.move(2)
    assert bench.journal.call(lambda: "again") == "again"
    assert len(calls) >= 2


def test_after_the_last_run_there_is_one_more_look(bench: Bench) -> None:
    bench.watchdog.look_now_or_later()
    bench.left = float("inf")
    bench.clock.move(1)
    assert bench.watchdog.look_now_or_later() == 2.0
    bench.clock.move(2)
    assert bench.watchdog.look_now_or_later() == float("inf")


def test_a_process_that_was_stopped_proves_nothing(bench: Bench) -> None:
    bench.watchdog.look_now_or_later()
    bench.clock.move(3600)
    assert bench.watchdog.look_now_or_later() == 1.0
    assert len(bench.looks) == 1


@pytest.mark.parametrize(("spool_dir", "watchdog"), [("off", True), (None, False)])
def test_there_is_a_thread_for_it_only_without_a_journal(
    spool_dir: str | None, watchdog: bool, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    settings = Settings(sampling_interval=0.1, spool_dir=spool_dir or str(tmp_path))
    daemon = Daemon(settings, collectors=[scripted(level=1)], open_sink=lambda _: FakeSink())
    series = daemon.attach("run", "uri", settings, started_at=0)
    eventually(lambda: daemon.status().ticks > 2)

    def names() -> set[str]:
        return {one.name for one in threading.enumerate() if one not in before}

    eventually(lambda: (WATCHDOG in names()) == watchdog)
    assert ("sysmetrics-journal" in names()) != watchdog
    daemon.detach(series, LONG_SECONDS)
    daemon.end()


def test_runs_that_begin_at_once_start_one_thread_for_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them would write into one file."""
    thread = JournalThread(FakeClock())
    starts: list[object] = []
    both = threading.Barrier(2)

    def start(loop: object) -> None:
        starts.append(loop)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # another caller that gets here would be let in

    monkeypatch.setattr("mlflow_sysmetrics.daemon.journal.thread.Loop.start", start)
    callers = [threading.Thread(target=thread.look_within, args=(1.0,)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(starts) == 1
