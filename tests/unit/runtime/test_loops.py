"""The last guard: a loop survives whatever its step raises, and a thread that died is started again."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime import loops
from mlflow_sysmetrics.runtime.loops import Loop, log_queue
from watching import LONG_SECONDS, eventually


class Failing:
    """A step that raises some errors, one after another, then succeeds until it is told to end."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.succeeded = 0
        self.ends = threading.Event()

    def __call__(self) -> bool:
        if self.errors:
            raise self.errors.pop(0)
        self.succeeded += 1
        return not self.ends.wait(0.005)


class Pauses(list[float]):
    """Records pauses instead of making them."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[Loop, Failing, Pauses]]]:
    steps = []

    def start(*errors: BaseException) -> tuple[Loop, Failing, Pauses]:
        step, pauses = Failing(*errors), Pauses()
        steps.append(step)
        loop = Loop(step, "sysmetrics-test", pause=pauses)
        loop.start()
        return loop, step, pauses

    yield start
    for step in steps:
        step.ends.set()


Started = Callable[..., tuple[Loop, Failing, Pauses]]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("maximum recursion depth exceeded"),
        RuntimeError("cannot schedule new futures after interpreter shutdown"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        type("ThreadTimeout", (BaseException,), {})("stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_loop_survives_what_its_step_raises(started: Started, error: BaseException) -> None:
    loop, step, _ = started(error)
    eventually(lambda: step.succeeded > 1)
    assert loop.is_alive
    assert loop.fault is None  # it works again


def test_a_loop_that_fails_again_and_again_backs_off_and_says_so_once(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    loop, step, pauses = started(*[MemoryError() for _ in range(12)])
    eventually(lambda: step.succeeded > loops._SUCCESSES_THAT_COUNT + 1)
    log_queue.wait(LONG_SECONDS)
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == loops._LONGEST_PAUSE_SECONDS
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow-sysmetrics: A step failed and is tried again: thread sysmetrics-test: MemoryError: .",
        "mlflow-sysmetrics: Thread sysmetrics-test works again.",
    ]
    assert loop.is_alive


def test_a_loop_says_what_its_last_step_failed_with() -> None:
    inside, over = threading.Event(), threading.Event()

    def pause(_: float) -> None:
        inside.set()
        over.wait(LONG_SECONDS)

    loop = Loop(Failing(MemoryError("no more")), "sysmetrics-test", pause=pause)
    loop.start()
    assert inside.wait(LONG_SECONDS)
    assert loop.fault == "thread sysmetrics-test: MemoryError: no more"
    over.set()


@pytest.mark.heavy
def test_an_exception_set_from_another_thread_does_not_end_a_loop() -> None:
    """As libraries for timeouts do, at any bytecode: also while the loop deals with the last one."""
    seen: set[int] = set()
    beats = []

    def step() -> bool:
        seen.add(threading.get_ident())
        beats.append(None)
        return len(beats) < 10**9

    loop = Loop(step, "sysmetrics-test", pause=lambda _: None)
    loop.start()
    eventually(lambda: seen)
    for _ in range(200):
        before = len(beats)
        for ident in list(seen):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
        loop.revive()
        eventually(lambda before=before: len(beats) > before)  # type: ignore[misc]
    assert loop.is_alive
    loop._step = lambda: False


def test_a_thread_that_died_is_reported_and_started_again() -> None:
    step = Failing()
    loop = Loop(step, "sysmetrics-test")
    assert loop.fault is None  # not wanted yet
    loop._run = lambda: None  # type: ignore[method-assign] # killed at the worst moment
    loop.start()
    eventually(lambda: not loop.is_alive)
    assert loop.has_died
    assert loop.fault == "thread sysmetrics-test has ended"
    del loop._run
    loop.revive()
    eventually(lambda: step.succeeded)
    assert loop.fault is None
    step.ends.set()
    eventually(lambda: not loop.is_alive)
    assert not loop.has_died  # its step has ended it


def test_a_thread_that_cannot_be_started_again_now_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Failing()
    loop = Loop(step, "sysmetrics-test")

    def refuse(*_: object) -> None:
        raise ThreadUnavailable("no thread can be started")

    with monkeypatch.context() as limited:
        limited.setattr(loops, "start_thread", refuse)
        with pytest.raises(ThreadUnavailable):
            loop.start()
        loop.revive()
        assert loop.has_died
    loop.revive()
    eventually(lambda: step.succeeded)
    step.ends.set()


def test_a_start_that_was_interrupted_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []
    ends = threading.Event()

    def step() -> bool:
        began.append(threading.get_ident())
        return not ends.wait(LONG_SECONDS)

    loop = Loop(step, "sysmetrics-test")
    start_thread = loops.start_thread

    def interrupted(run: Callable[[], None], name: str) -> None:
        start_thread(run, name)
        raise TimeoutError  # of a signal handler, when the thread runs already

    with monkeypatch.context() as patched:
        patched.setattr(loops, "start_thread", interrupted)
        with pytest.raises(TimeoutError):
            loop.start()
    eventually(lambda: began)
    assert loop.is_alive
    for _ in range(5):
        loop.start()
        loop.revive()
    assert len(began) == 1
    assert loop.is_alive
    ends.set()
    eventually(lambda: not loop.is_alive)
    assert len(began) == 1
