"""Readings beside the thread that asks for them: never a wait, never a thread too many."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from pytest_mock import MockerFixture

from fakes import FakeClock
from mlflow_sysmetrics.beside import Beside, Reading
from mlflow_sysmetrics.errors import Unavailable

LONG_SECONDS = 10.0  # a thread that never comes must not hold the suite; one that comes takes microseconds


class Tool:
    """What takes long: it tells when it begins, and ends when the test lets it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.runs = 0
        self.takes = 0.0
        self.error: BaseException | None = None
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self) -> int:
        self.runs += 1
        self.began.release()
        assert self.may_end.acquire(timeout=LONG_SECONDS)
        self.clock.move(self.takes)
        if self.error is not None:
            raise self.error
        return self.runs


def soon(true: Callable[[], object]) -> None:
    """Waits until something is true that another thread is about to make true."""
    deadline = time.monotonic() + LONG_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tool(clock: FakeClock) -> Tool:
    return Tool(clock)


@pytest.fixture
def beside(tool: Tool, clock: FakeClock) -> Iterator[Beside[int]]:
    made = Beside("test", tool, rest_seconds=5.0, idle_seconds=LONG_SECONDS, clock=clock.monotonic)
    yield made
    made._idle_seconds = 0.0
    made._asked.set()  # one more reading, and then the thread ends
    for _ in range(3):
        tool.may_end.release()
    if made._thread is not None:
        ended(made)


def read_once(beside: Beside[int], tool: Tool) -> None:
    """Asks, and lets the reading end."""
    beside.latest()
    assert tool.began.acquire(timeout=LONG_SECONDS)
    tool.may_end.release()
    soon(lambda: beside._due_at != float("inf"))


def ended(beside: Beside[int]) -> None:
    """Waits until the thread has ended, as it is about to."""
    assert beside._thread is not None
    beside._thread.join(LONG_SECONDS)
    assert not beside._thread.is_alive()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sysmetrics-test"]


def test_no_thread_runs_before_somebody_asks(beside: Beside[int]) -> None:
    assert threads() == []
    beside.latest()
    assert len(threads()) == 1


def test_the_thread_does_not_keep_the_interpreter_alive(beside: Beside[int]) -> None:
    beside.latest()
    assert threads()[0].daemon


def test_nobody_waits_for_a_reading_that_takes_long(beside: Beside[int], tool: Tool) -> None:
    assert beside.latest() is None
    assert tool.began.acquire(timeout=LONG_SECONDS)
    assert beside.latest() is None


def test_a_reading_comes_with_its_age(beside: Beside[int], tool: Tool, clock: FakeClock) -> None:
    read_once(beside, tool)
    clock.move(2.0)
    assert beside.latest() == Reading(value=1, ended_at=100.0, age=2.0)


def test_the_last_reading_stays_while_the_next_is_made(
    beside: Beside[int], tool: Tool, clock: FakeClock
) -> None:
    read_once(beside, tool)
    clock.move(7.0)
    beside.latest()
    assert tool.began.acquire(timeout=LONG_SECONDS)
    reading = beside.latest()
    assert reading is not None
    assert (reading.value, reading.age) == (1, 7.0)


def test_questions_while_a_reading_is_made_are_one_question(
    beside: Beside[int], tool: Tool, clock: FakeClock
) -> None:
    for _ in range(5):
        beside.latest()
        clock.move(60.0)
    tool.may_end.release()
    soon(lambda: beside._last is not None)
    assert tool.runs == 1


def test_it_rests_after_a_reading(beside: Beside[int], tool: Tool, clock: FakeClock) -> None:
    read_once(beside, tool)
    clock.move(4.9)
    beside.latest()
    assert not beside._asked.is_set()
    assert beside._due_at == 105.0
    clock.move(0.1)
    beside.latest()
    assert tool.began.acquire(timeout=LONG_SECONDS)


def test_a_dear_reading_is_made_less_often(beside: Beside[int], tool: Tool, clock: FakeClock) -> None:
    tool.takes = 0.3
    read_once(beside, tool)
    assert beside._due_at == pytest.approx(clock.seconds + 30.0)


def test_one_thread_makes_all_readings(beside: Beside[int], tool: Tool, clock: FakeClock) -> None:
    read_once(beside, tool)
    first = threads()
    clock.move(5.0)
    read_once(beside, tool)
    assert threads() == first
    assert tool.runs == 2


def test_the_thread_ends_when_nobody_asks(tool: Tool, clock: FakeClock) -> None:
    beside = Beside("test", tool, rest_seconds=5.0, idle_seconds=0.01, clock=clock.monotonic)
    read_once(beside, tool)
    ended(beside)
    clock.move(3600.0)
    reading = beside.latest()
    assert reading is not None
    assert reading.age == 3600.0
    assert tool.began.acquire(timeout=LONG_SECONDS)
    tool.may_end.release()
    ended(beside)


def test_a_question_that_meets_a_thread_that_ends_is_not_lost(tool: Tool, clock: FakeClock) -> None:
    beside = Beside("test", tool, rest_seconds=5.0, idle_seconds=0.0, clock=clock.monotonic)
    beside._thread, beside._due_at = threading.Thread(), float("inf")
    beside._asked.set()  # as the question left it that took the thread for alive
    read_once(beside, tool)
    assert tool.runs == 1
    ended(beside)


@pytest.mark.parametrize("error", [Unavailable("ioreg is not installed"), SystemExit(3)])
def test_a_failure_is_raised_once_and_the_next_question_begins_anew(
    beside: Beside[int], tool: Tool, error: BaseException
) -> None:
    tool.error = error
    read_once(beside, tool)
    ended(beside)
    with pytest.raises(type(error)):
        beside.latest()
    tool.error = None
    read_once(beside, tool)
    reading = beside.latest()
    assert reading is not None
    assert reading.value == 2


def test_a_failure_leaves_no_earlier_reading(beside: Beside[int], tool: Tool, clock: FakeClock) -> None:
    read_once(beside, tool)
    clock.move(5.0)
    tool.error = Unavailable("gone")
    read_once(beside, tool)
    ended(beside)
    with pytest.raises(Unavailable):
        beside.latest()
    assert beside.latest() is None


def test_a_thread_that_cannot_be_had_is_said_and_tried_again(
    beside: Beside[int], tool: Tool, mocker: MockerFixture
) -> None:
    start = mocker.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread"))
    with pytest.raises(Unavailable, match="no thread could be started"):
        beside.latest()
    mocker.stop(start)
    read_once(beside, tool)
    assert tool.runs == 1


def test_in_another_process_nothing_is_known(beside: Beside[int], tool: Tool) -> None:
    read_once(beside, tool)
    parents, parents_event = beside._thread, beside._asked
    beside._pid = -1
    assert beside.latest() is None
    assert beside._thread is not parents
    assert parents is not None
    beside._idle_seconds = 0.0
    parents_event.set()
    tool.may_end.release()
    parents.join(LONG_SECONDS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_forgets_its_parents_reading_and_makes_its_own(
    tool: Tool, beside: Beside[int]
) -> None:
    read_once(beside, tool)

    def child() -> bool:
        if beside.latest() is not None:
            return False
        tool.may_end.release()
        soon(lambda: beside._last is not None)
        reading = beside.latest()
        return reading is not None and reading.value == 2

    with warnings.catch_warnings():
        # Python 3.12 warns of a fork while threads run, which is what this test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if child() else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    reading = beside.latest()
    assert reading is not None
    assert reading.value == 1
