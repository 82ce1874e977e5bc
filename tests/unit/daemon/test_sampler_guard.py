"""What a tick raises costs neither the thread nor the points of the runs; and what ends a thread is seen."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Iterator

import pytest

from fakes import LEVEL, STARTED_AT, FakeClock, FakeSink, Scripted, scripted
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.settings import Settings
from watching import LONG_SECONDS, eventually

pytestmark = pytest.mark.heavy

FAST = Settings(
    sampling_interval=0.1, samples_before_logging=1, send_interval=0.1, flush_timeout=LONG_SECONDS
)


class Bench:
    """A sampler whose thread is the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.probes = [Probe(scripted(level=number), Host()) for number in (1, 2)]
        self.sampler = Sampler(self.probes, self.clock)
        self.sender = Sender("uri", lambda _: FakeSink(), self.clock)

    def series(self, run_id: str) -> RunSeries:
        settings = Settings(sampling_interval=1, samples_before_logging=1)
        series = RunSeries(("uri", run_id), settings, Channel(self.sender, RunQueue(run_id, STARTED_AT, 1e3)))
        self.sampler.add(series)
        return series

    def step(self) -> None:
        self.clock.move(1)
        self.sampler.run_due()


def points(series: RunSeries) -> int:
    return len(series.channel.queue.peek(100_000).points)


def fail(*_: object, **__: object) -> None:
    raise MemoryError


def test_a_tick_that_fails_is_continued_and_forgets_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    first, second = bench.series("first"), bench.series("second")
    flushed = bench.sampler.flush()
    with monkeypatch.context() as broken:
        broken.setattr(first, "emit", fail)
        with pytest.raises(MemoryError):
            bench.step()
    assert not flushed.is_set()
    bench.step()
    assert flushed.is_set()
    assert points(first) == points(second) > 0
    assert bench.sampler.ticks == 1  # the same one


def test_a_probe_whose_guard_fails_costs_only_its_own_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    series = bench.series("run")
    monkeypatch.setattr(bench.probes[0], "read", fail)
    with pytest.raises(MemoryError):
        bench.step()
    bench.step()
    assert points(series) == 1
    assert bench.sampler.replace_if_stuck() > 0
    assert not bench.sampler.thread.left_behind


def test_a_run_that_takes_no_points_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    poison, other = bench.series("poison"), bench.series("other")
    monkeypatch.setattr(poison, "emit", fail)
    with pytest.raises(MemoryError):
        bench.step()
    bench.step()
    assert points(other) > 0
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow-sysmetrics: Points of run poison are lost: MemoryError: ."
    ]


def test_a_run_ends_even_if_its_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    series = bench.series("run")
    bench.step()
    monkeypatch.setattr(series.channel, "end", fail)
    bench.sampler.remove(series)
    with pytest.raises(MemoryError):
        bench.step()
    assert series.ended.is_set()
    bench.step()
    assert bench.sampler.ticks == 2


@pytest.fixture
def sinks() -> dict[str, FakeSink]:
    return {}


@pytest.fixture
def daemon(sinks: dict[str, FakeSink]) -> Daemon:
    return Daemon(
        FAST, collectors=[scripted(level=1)], open_sink=lambda uri: sinks.setdefault(uri, FakeSink())
    )


@pytest.fixture
def strict_logging() -> Iterator[None]:
    """Makes every line of ours raise, as in a strict test suite or with a broken log sink."""

    class Strict(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    handler = Strict()
    logger = logging.getLogger("mlflow_sysmetrics")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.usefixtures("strict_logging")
def test_a_log_handler_that_raises_stops_nothing(sinks: dict[str, FakeSink]) -> None:
    collector = scripted(level=1)
    collector.error = ZeroDivisionError("a source went away")
    daemon = Daemon(
        FAST, collectors=[collector, Scripted], open_sink=lambda uri: sinks.setdefault(uri, FakeSink())
    )
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: "uri" in sinks and len(sinks["uri"].points("run")) > 3)
    assert daemon.status().running
    assert daemon.status().last_error is None
    assert daemon.detach(series, None)
    daemon.end()


@pytest.mark.parametrize("name", ["sysmetrics-sampler", "sysmetrics-sender", "sysmetrics-journal"])
def test_an_exception_set_in_our_threads_stops_nothing(
    daemon: Daemon, sinks: dict[str, FakeSink], name: str
) -> None:
    before = set(threading.enumerate())
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: "uri" in sinks and len(sinks["uri"].points("run")) > 1)
    ours = [one for one in threading.enumerate() if one.name.startswith(name) and one not in before]
    for _ in range(4):  # more would be longer pauses
        for thread in ours:
            ident = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
        sent = len(sinks["uri"].points("run"))
        daemon._watchdog.look()
        eventually(lambda sent=sent: len(sinks["uri"].points("run")) > sent)  # type: ignore[misc]
    assert daemon.status().running
    assert daemon.detach(series, None)


def test_a_sampler_that_has_died_is_seen_and_started_again_by_the_next_attach(
    daemon: Daemon, sinks: dict[str, FakeSink]
) -> None:
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: daemon.status().ticks > 1)
    loop = daemon.sampler.thread.loop
    daemon._watchdog.look = lambda: float("inf")  # type: ignore[method-assign] # which would start it at once
    daemon._watchdog.stir()
    step, wanted = loop._step, loop._is_wanted
    loop._step = lambda: False
    eventually(lambda: not loop.is_alive)
    loop._step, loop._is_wanted = step, wanted  # as if it had been killed
    assert not daemon.status().running
    assert daemon.status().last_error == "thread sysmetrics-sampler has ended"
    ticks = daemon.status().ticks
    daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: daemon.status().ticks > ticks)
    assert daemon.status().running
    assert daemon.status().last_error is None
    daemon.detach(series, None)
    assert daemon.detach(series, None)
    assert LEVEL.name in sinks["uri"].points("run")[0].key
