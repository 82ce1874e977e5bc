"""A source that does not answer is left behind within seconds; the others go on, and it comes back.

The threads are real, since they are the point; the clock is moved by hand.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import pytest

from fakes import LEVEL, SHARE, STARTED_AT, TOTAL, FakeClock, FakeSink, Scripted, scripted
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.daemon.watchdog import Watchdog
from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.loops import log_queue
from mlflow_sysmetrics.samples import Family, Sample
from mlflow_sysmetrics.settings import Settings
from watching import LONG_SECONDS, eventually


class Hanging(Scripted):
    """A collector that hangs while `hangs`: when it is built, or in the middle of its values."""

    in_constructor: ClassVar[bool] = False
    hangs: ClassVar[bool] = False
    inside: ClassVar[threading.Event]
    answers: ClassVar[threading.Event]

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        if self.in_constructor:
            self._wait()

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the values, or hangs after the first."""
        values = super().collect(now)
        yield next(values)
        if not self.in_constructor:
            self._wait()
        yield from values

    def _wait(self) -> None:
        if self.hangs:
            self.inside.set()
            assert self.answers.wait(LONG_SECONDS)


def hanging(*, in_constructor: bool = False) -> type[Hanging]:
    values = {LEVEL: 1.0, SHARE: 2.0, TOTAL: 3.0}
    events = {"inside": threading.Event(), "answers": threading.Event()}
    more = {"values": values, "error": None, "built": 0, "in_constructor": in_constructor, **events}
    return type("GpuLinux", (Hanging,), {**more, "family": Family.GPU})


class Bench:
    """A sampler with its thread and a watchdog whose thread is the test."""

    def __init__(self, *collectors: type[Scripted]) -> None:
        self.clock = FakeClock()
        self.probes = [Probe(one, Host()) for one in collectors]
        self.sampler = Sampler(self.probes, self.clock)
        self.sender = Sender("uri", lambda _: FakeSink(), self.clock)
        self.attached: list[RunSeries] = []
        self.watchdog = Watchdog(self.sampler, self.clock, attached=lambda: self.attached)
        self.sampler.stirred = self.sampler.thread.answered = lambda: None
        self.sampler.start()

    def attach(self) -> RunSeries:
        settings = Settings(sampling_interval=1, samples_before_logging=1)
        series = RunSeries(("uri", "run"), settings, Channel(self.sender, RunQueue("run", STARTED_AT, 1e3)))
        self.sampler.add(series)
        self.attached.append(series)
        return series

    def tick(self, times: int = 1) -> None:
        """Lets the thread tick; the clock moves on by a second for each tick."""
        for _ in range(times):
            before = self.sampler.ticks
            self.clock.move(1)
            self.sampler._wake.set()
            eventually(lambda before=before: self.sampler.ticks > before)  # type: ignore[misc]

    def hang(self, *collectors: type[Hanging]) -> None:
        """Makes collectors hang, and waits until the thread is stuck in the first."""
        for one in collectors:
            one.hangs = True
        self.clock.move(1)
        self.sampler._wake.set()
        assert collectors[0].inside.wait(LONG_SECONDS)

    def release(self, collector: type[Hanging]) -> None:
        collector.hangs = False
        collector.answers.set()
        eventually(lambda: not any(one.began_at for one in self.probes))


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    log_queue.wait(LONG_SECONDS)
    return [record.getMessage().removeprefix("mlflow-sysmetrics: ") for record in caplog.records]


def keys(series: RunSeries) -> list[str]:
    return [point.key for point in series.channel.queue.peek(100_000).points]


@pytest.mark.parametrize("in_constructor", [False, True], ids=["a reading", "opening"])
def test_the_other_sources_are_read_on_in_the_same_tick(in_constructor: bool) -> None:
    gpu, memory = hanging(in_constructor=in_constructor), scripted(level=5)
    bench = Bench(gpu, memory)
    if in_constructor:
        gpu.hangs = True
    else:
        bench.attach()
        eventually(lambda: bench.sampler.ticks)
    before = bench.sampler.ticks
    series = bench.attach()
    bench.hang(gpu)
    assert bench.watchdog.look() <= 2  # not yet: two intervals
    bench.clock.move(2)
    bench.watchdog.look()
    eventually(lambda: bench.sampler.ticks > before)
    assert f"system/{LEVEL.name}" in keys(series)
    bench.tick(3)
    bench.release(gpu)


def test_closing_a_source_may_hang_too() -> None:
    """As NVML, when the collector is built anew after a pause and frees what it held."""
    inside, answers = threading.Event(), threading.Event()

    def close(_: object) -> None:
        inside.set()
        answers.wait(LONG_SECONDS)

    gpu = type("GpuLinux", (Scripted,), {"values": {LEVEL: 1.0}, "built": 0, "__del__": close})
    bench = Bench(gpu, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    ticks = bench.sampler.ticks
    bench.probes[0].renew()
    bench.clock.move(1)
    bench.sampler._wake.set()
    assert inside.wait(LONG_SECONDS)
    bench.clock.move(2)
    bench.watchdog.look()
    eventually(lambda: bench.sampler.ticks > ticks)
    bench.tick(2)
    answers.set()
    eventually(lambda: bench.probes[0].began_at is None)


@pytest.mark.heavy
def test_a_thread_that_is_stuck_costs_one_thread_and_not_one_per_tick() -> None:
    gpu, memory = hanging(), scripted(level=5)
    bench = Bench(gpu, memory)
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    bench.clock.move(2)
    bench.watchdog.look()
    threads = threading.active_count()
    for _ in range(20):
        bench.tick()
        bench.watchdog.look()
    assert threading.active_count() <= threads
    bench.release(gpu)
    eventually(lambda: threading.active_count() < threads)


def test_it_is_named_once_while_it_hangs_and_when_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    gpu, memory = hanging(), scripted(level=5)
    bench = Bench(gpu, memory)
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    bench.clock.move(2)
    bench.watchdog.look()
    assert bench.probes[0].health == "ok"  # it may just be slow
    bench.clock.move(3)
    for _ in range(5):
        bench.watchdog.look()
    assert bench.probes[0].health == "hanging: no answer for over 5 s"
    assert bench.probes[1].health == "ok"
    assert series.channel.queue.tags == {"sys.metrics": "on, but no answer from GpuLinux"}
    bench.clock.move(60)
    bench.release(gpu)
    bench.watchdog.look()
    assert series.channel.queue.tags == {"sys.metrics": "on"}
    bench.tick(2)
    assert bench.probes[0].health == "ok"
    assert said(caplog) == [
        "Collector GpuLinux hangs: no answer for over 5 s. The others go on; it is read again once it answers.",
        "Collector GpuLinux answers again after 65 s.",
    ]


def test_a_source_that_is_read_in_a_thread_of_its_own_is_named_in_the_tag() -> None:
    """As a watched directory on a network filesystem whose server is gone."""
    disk = scripted(level=5)
    disk.gaps = ("/data does not respond; mount it, or correct MLFLOW_SYSMETRICS_DISKS",)
    bench = Bench(disk)
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.watchdog.look()
    assert series.channel.queue.tags == {"sys.metrics": "on, but no answer from Scripted"}
    disk.gaps = ()
    bench.tick(5)
    bench.watchdog.look()
    assert series.channel.queue.tags == {"sys.metrics": "on"}


def test_a_run_is_told_of_each_change_once_and_of_few() -> None:
    disk = scripted(level=5)
    bench = Bench(disk)
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    told = []
    put = series.channel.put_tags

    def put_tags(tags: dict[str, str], *, at_once: bool) -> None:
        told.append(tags["sys.metrics"])
        put(tags, at_once=at_once)

    series.channel.put_tags = put_tags  # type: ignore[method-assign]
    for second in range(20):
        disk.gaps = ("/data does not respond",) if second % 2 else ()
        bench.tick()
        bench.watchdog.look()
    assert told[0] == "on, but no answer from Scripted"
    assert len(told) == len([one for one in pairwise(["on", *told]) if one[0] != one[1]]) <= 4


def test_a_run_that_is_attached_meanwhile_is_told() -> None:
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    for _ in range(2):
        bench.clock.move(5)
        bench.watchdog.look()
    late = bench.attach()
    bench.watchdog.look()
    assert late.channel.queue.tags == {"sys.metrics": "on, but no answer from GpuLinux"}
    bench.release(gpu)


def test_the_gap_is_a_gap() -> None:
    """A late answer is of another time; and a rate over the gap, with the clock of its begin, would be wrong."""
    gpu = hanging()
    bench = Bench(gpu, scripted(share=5))
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    bench.clock.move(2)
    bench.watchdog.look()
    bench.tick(3)
    before, built = keys(series).count(f"system/{LEVEL.name}"), gpu.built
    bench.release(gpu)
    assert keys(series).count(f"system/{LEVEL.name}") == before
    bench.tick(2)
    assert gpu.built == built + 1
    assert keys(series).count(f"system/{LEVEL.name}") > before


def test_sources_that_hang_one_after_another_cost_one_thread_each() -> None:
    """As the two collectors of NVML do, which waits for one lock in all its functions."""
    gpus = [hanging() for _ in range(4)]
    bench = Bench(*gpus, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    ticks, threads = bench.sampler.ticks, threading.active_count()
    bench.hang(*gpus)
    for gpu in gpus:
        assert gpu.inside.wait(LONG_SECONDS)
        bench.clock.move(2)
        bench.watchdog.look()
    eventually(lambda: bench.sampler.ticks > ticks)
    assert threading.active_count() == threads + len(gpus)
    bench.clock.move(5)
    bench.watchdog.look()
    assert {probe.health for probe in bench.probes[:-1]} == {"hanging: no answer for over 5 s"}
    for gpu in gpus:
        gpu.hangs = False
        gpu.answers.set()
    eventually(lambda: threading.active_count() == threads)
    bench.tick(2)
    assert {probe.health for probe in bench.probes} == {"ok"}


def test_a_slow_source_is_waited_for_the_next_time(caplog: pytest.LogCaptureFixture) -> None:
    """What takes 2.5 s each time costs no thread each time, and has values."""
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    bench.clock.move(2.5)
    bench.watchdog.look()
    bench.release(gpu)
    bench.tick()
    gpu.inside.clear()
    gpu.answers.clear()
    bench.hang(gpu)
    bench.clock.move(2.5)
    assert bench.watchdog.look() == pytest.approx(2.5)  # of 5 s
    assert bench.probes[0].began_at is None
    gpu.answers.set()
    assert said(caplog) == []


def test_a_late_answer_may_be_a_failure() -> None:
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.hang(gpu)
    bench.clock.move(6)
    bench.watchdog.look()
    bench.watchdog.look()
    gpu.error = Unavailable("NVML: a GPU is lost: reset it or reboot")  # type: ignore[assignment,misc]
    bench.release(gpu)
    assert bench.probes[0].health == "unavailable: NVML: a GPU is lost: reset it or reboot"


def test_a_run_that_ends_while_a_source_hangs_has_its_last_points() -> None:
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    bench.sampler.remove(series)
    bench.hang(gpu)
    bench.clock.move(2)
    bench.watchdog.look()
    assert series.ended.wait(LONG_SECONDS)
    bench.release(gpu)


def test_without_a_new_thread_the_next_look_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    bench.attach()
    eventually(lambda: bench.sampler.ticks)
    ticks = bench.sampler.ticks
    bench.hang(gpu)
    bench.clock.move(2)

    def refuse(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    with monkeypatch.context() as limited:
        limited.setattr("mlflow_sysmetrics.runtime.loops.start_thread", refuse)
        bench.watchdog.look()
        assert bench.watchdog.fault == "thread sysmetrics-sampler has ended"
    bench.watchdog.look()
    eventually(lambda: bench.sampler.ticks > ticks)
    assert bench.watchdog.fault is None
    bench.release(gpu)


def test_an_idle_sampler_is_not_looked_at() -> None:
    bench = Bench(scripted(level=5))
    assert bench.watchdog.look() == float("inf")
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    assert bench.watchdog.look() < float("inf")
    bench.sampler.remove(series)
    assert series.ended.wait(LONG_SECONDS)
    eventually(lambda: bench.watchdog.look() == float("inf"))


class Asleep:
    """Stands in for the event that the watchdog waits for: a wait takes as long as it is told to."""

    def __init__(self, clock: FakeClock, *lasts: float) -> None:
        self.clock = clock
        self.lasts = list(lasts)
        self.waits: list[float | None] = []

    def clear(self) -> None:
        """Does nothing."""

    def wait(self, seconds: float | None = None) -> None:
        """Moves the clock."""
        self.waits.append(seconds)
        self.clock.move(self.lasts.pop(0))


def test_a_process_that_was_stopped_proves_nothing() -> None:
    """After SIGSTOP and SIGCONT every reading is old, and every source may be well."""
    bench = Bench(scripted(level=5))
    looks = []

    def look() -> float:
        looks.append(bench.clock.seconds)
        return 2.0

    bench.watchdog.look = look  # type: ignore[method-assign]
    bench.watchdog._stirred = asleep = Asleep(bench.clock, 3600, 1, 2)  # type: ignore[assignment]
    bench.watchdog._step()
    assert asleep.waits == [2.0, 1.0]  # the other threads get a second before the next look
    assert len(looks) == 1


@pytest.mark.parametrize(("samples", "longest"), [(1, 3), (5, 5.5), (10, 10.5), (600, 10.6)])
def test_the_watchdog_looks_more_rarely_while_it_finds_nothing(samples: int, longest: float) -> None:
    """Normally a window ends first, with a look; without one, 9.6 s after a source may begin to hang."""
    bench = Bench(scripted(level=5))
    settings = Settings(sampling_interval=1, samples_before_logging=samples)
    bench.sampler.add(
        RunSeries(("uri", "run"), settings, Channel(bench.sender, RunQueue("run", STARTED_AT, 1e3)))
    )
    eventually(lambda: bench.sampler.ticks and not bench.sampler.is_ticking)
    bench.watchdog._stirred = asleep = Asleep(bench.clock, *[0.0] * 6)  # type: ignore[assignment]
    for _ in range(5):
        bench.watchdog._step()
    assert asleep.waits == sorted(asleep.waits)
    assert asleep.waits[0] <= 3
    assert asleep.waits[-1] == longest


@pytest.mark.parametrize("request_name", ["add", "remove", "flush"])
def test_a_request_to_a_sampler_that_is_stuck_is_looked_into_at_once(request_name: str) -> None:
    gpu = hanging()
    bench = Bench(gpu, scripted(level=5))
    series = bench.attach()
    eventually(lambda: bench.sampler.ticks)
    stirred: list[str] = []
    bench.sampler.delayed = lambda: stirred.append(request_name)
    bench.hang(gpu)
    assert not stirred
    arguments = [] if request_name == "flush" else [series]
    getattr(bench.sampler, request_name)(*arguments)
    assert stirred == [request_name]
    gpu.hangs = False
    gpu.answers.set()
    eventually(lambda: not bench.sampler.is_ticking)
