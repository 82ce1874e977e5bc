"""A day in one process, and thousands of consecutive runs: nothing grows."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from chaos_starter import Starter

from fakes import STARTED_AT, FakeClock, scripted
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime import loops
from mlflow_sysmetrics.settings import Settings

pytest_plugins = ["chaos_fixtures"]

# `nox -s slow` sets CHAOS_RUNS=10000.
RUNS = int(os.environ.get("CHAOS_RUNS", "1000"))
DAY_SECONDS = 24 * 3600
TICKS_PER_RUN = 8  # at the default rate of one per second; the remaining time is between runs
WARM = 250  # runs after which all one-time allocations have happened
# Allowance for caches, here and in threads of earlier tests. Keeping a name would be 50 bytes per run, a point 100.
GROWTH_BYTES = 40 * RUNS


class CountingSink:
    """Counts points and keeps nothing."""

    def __init__(self) -> None:
        self.points = 0

    def started_at(self, run_id: str) -> int:
        del run_id
        return STARTED_AT

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        del run_id, steps, tags
        self.points += len(points)

    def close(self) -> None:
        """Does nothing."""


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Idle:
    """Stands in for a thread."""

    def is_alive(self) -> bool:
        """Returns True."""
        return True


def start_the_sampler_only(_: object, name: str) -> Idle:
    if name != "sysmetrics-sampler":
        raise ThreadUnavailable("no thread can be started")
    return Idle()


@pytest.mark.usefixtures("traced")
@pytest.mark.slow
def test_a_day_with_thousands_of_runs_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    """The test does the work of the threads, so that a day lasts seconds."""
    monkeypatch.setattr(loops, "start_thread", start_the_sampler_only)
    clock, sink = FakeClock(), CountingSink()
    settings = Settings(spool_dir=str(spool))
    collectors = [scripted(level=1, share=2, total=3)]
    daemon = Daemon(settings, clock=clock, collectors=collectors, open_sink=lambda _: sink)
    warm = size_of_process()
    for number in range(RUNS):
        live(daemon, f"run-{number}", settings, clock)
        if number == WARM:
            warm = size_of_process()
    memory, descriptors, threads = (now - then for now, then in zip(size_of_process(), warm, strict=True))
    # Connections and threads of earlier tests may end meanwhile; a leak would be one per run.
    assert (max(descriptors, 0), max(threads, 0)) == (0, 0)
    assert memory < GROWTH_BYTES, memory
    assert daemon.sampler.ticks >= RUNS * TICKS_PER_RUN
    status = daemon.status()
    assert (status.points_delivered, status.points_pending, status.points_dropped) == (sink.points, 0, 0)
    assert sum(path.stat().st_size for path in spool.iterdir()) < 1_000_000


def live(daemon: Daemon, run_id: str, settings: Settings, clock: FakeClock) -> None:
    """Attaches a run, samples it at the default rate, and detaches it."""
    series = daemon.attach(run_id, "uri", settings, started_at=STARTED_AT)
    for _ in range(TICKS_PER_RUN):
        step(daemon, clock)
    daemon.detach(series, 0)
    step(daemon, clock, seconds=DAY_SECONDS / RUNS - TICKS_PER_RUN)


def step(daemon: Daemon, clock: FakeClock, seconds: float = 1) -> None:
    """Does the work of both threads within one second."""
    daemon.sampler.tick()
    for one in daemon._senders.all():
        while one.send_next():
            one.tidy()
        one.tidy()
        one.log_messages()
    clock.move(seconds)


def size_of_process() -> tuple[int, int, int]:
    """Returns bytes, open descriptors and threads."""
    gc.collect()
    process = psutil.Process()
    descriptors = process.num_handles() if sys.platform == "win32" else process.num_fds()
    return tracemalloc.get_traced_memory()[0], descriptors, threading.active_count()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="programs are forked here")
@pytest.mark.slow
def test_consecutive_runs_share_the_threads_and_files_of_the_first(start: Starter) -> None:
    """With real threads and a real clock, but without a server."""
    program = start(
        """
    import psutil
    from mlflow_sysmetrics.daemon.delivery.sink import RunSink
    RunSink.send = lambda *_: None
    def size():
        return psutil.Process().num_fds(), threading.active_count()
    def grown():  # the sender's thread ends between two runs that are far apart
        return any(now > before for now, before in zip(size(), first))
    for number in range(int(os.environ["RUNS"])):
        with mlflow_sysmetrics.attach(f"{number:032x}", tracking_uri=URL, started_at=0):
            pass
        if number == 50:
            lasting_threads()  # the recovery of other journals has ended
            first = size()
        if number > 50 and grown():
            eventually(lambda: not grown())  # the sender opens the journal a second time while it tidies up
    print(mlflow_sysmetrics.status().points_pending)
    """,
        CHAOS_URL="http://127.0.0.1:9",
        RUNS=str(RUNS // 10),
    )
    assert program.wait() == 0, program.stderr
    assert program.stdout == "0"
