"""Background readings never block the thread that asks, and never leak threads."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from pytest_mock import MockerFixture

from fakes import FakeClock
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.runtime import background_reading
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading, Reading
from watching import eventually

LONG_SECONDS = 60.0  # bounds a test whose thread never ends; normally microseconds


class Tool:
    """A slow reading that signals its start and ends when the test allows it."""

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


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tool(clock: FakeClock) -> Tool:
    return Tool(clock)


@pytest.fixture
def make(tool: Tool, clock: FakeClock) -> Iterator[Callable[..., BackgroundReading[int]]]:
    def make(rest_seconds: float = 5.0) -> BackgroundReading[int]:
        return BackgroundReading("test", tool, rest_seconds=rest_seconds, clock=clock.monotonic)

    yield make
    for _ in range(3):
        tool.may_end.release()
    ended()


@pytest.fixture
def background(make: Callable[..., BackgroundReading[int]]) -> BackgroundReading[int]:
    return make()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sysmetrics-test"]


def ended() -> None:
    """Waits until the reading has ended, and its thread waits for the next."""
    eventually(lambda: not threads())


def read_once(background: BackgroundReading[int], tool: Tool) -> None:
    """Asks, and lets the reading end."""
    background.ask()
    assert tool.began.acquire(timeout=LONG_SECONDS)
    tool.may_end.release()
    ended()


def test_no_thread_runs_before_the_first_ask(background: BackgroundReading[int]) -> None:
    assert background.answer() is None
    assert threads() == []
    background.ask()
    assert len(threads()) == 1


def test_the_thread_does_not_keep_the_interpreter_alive(background: BackgroundReading[int]) -> None:
    background.ask()
    assert threads()[0].daemon


def test_a_slow_reading_does_not_block(background: BackgroundReading[int], tool: Tool) -> None:
    assert background.latest() is None
    assert tool.began.acquire(timeout=LONG_SECONDS)
    assert background.latest() is None


def test_answer_waits_as_long_as_requested(background: BackgroundReading[int], tool: Tool) -> None:
    background.ask()
    assert background.answer(within=0.01) is None
    tool.may_end.release()
    assert background.answer(within=LONG_SECONDS) == Reading(value=1, ended_at=100.0, age=0.0)


def test_a_reading_comes_with_its_age(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    read_once(background, tool)
    clock.move(2.0)
    assert background.latest() == Reading(value=1, ended_at=100.0, age=2.0)


def test_the_last_reading_stays_available_during_the_next(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    read_once(background, tool)
    clock.move(7.0)
    background.ask()
    assert tool.began.acquire(timeout=LONG_SECONDS)
    assert background.latest() == Reading(value=1, ended_at=100.0, age=7.0)


def test_waiting_seconds_measures_the_reading_under_way(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    assert background.waiting_seconds == 0.0
    background.ask()
    clock.move(40.0)
    assert background.waiting_seconds == 40.0
    tool.may_end.release()
    ended()
    assert background.waiting_seconds == 0.0


def test_asking_during_a_reading_starts_no_second_one(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    for _ in range(5):
        background.ask()
        clock.move(60.0)
    assert len(threads()) == 1
    tool.may_end.release()
    ended()
    assert tool.runs == 1


def test_it_rests_after_a_reading(background: BackgroundReading[int], tool: Tool, clock: FakeClock) -> None:
    read_once(background, tool)
    clock.move(4.9)
    background.ask()
    assert threads() == []
    clock.move(0.2)
    background.ask()
    assert len(threads()) == 1


def test_an_expensive_reading_is_made_less_often(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    tool.takes = 0.3
    read_once(background, tool)
    clock.move(29.9)
    background.ask()
    assert threads() == []
    clock.move(0.2)
    background.ask()
    assert len(threads()) == 1


def test_without_a_rest_every_ask_makes_a_reading(
    make: Callable[..., BackgroundReading[int]], tool: Tool
) -> None:
    background = make(rest_seconds=0)
    read_once(background, tool)
    read_once(background, tool)
    reading = background.answer()
    assert reading is not None
    assert reading.value == 2


@pytest.mark.parametrize("error", [Unavailable("ioreg is not installed"), SystemExit(3)])
def test_a_failure_is_raised_once_and_the_next_ask_starts_afresh(
    background: BackgroundReading[int], tool: Tool, error: BaseException
) -> None:
    tool.error = error
    read_once(background, tool)
    with pytest.raises(type(error)):
        background.latest()
    tool.error = None
    read_once(background, tool)
    reading = background.latest()
    assert reading is not None
    assert reading.value == 2


def test_a_failure_discards_the_earlier_reading(
    background: BackgroundReading[int], tool: Tool, clock: FakeClock
) -> None:
    read_once(background, tool)
    clock.move(5.0)
    tool.error = Unavailable("gone")
    read_once(background, tool)
    with pytest.raises(Unavailable):
        background.answer()
    assert background.answer() is None


def test_a_reading_that_never_ends_keeps_one_thread_for_all_objects(
    make: Callable[..., BackgroundReading[int]],
) -> None:
    make().ask()
    second = make()
    with pytest.raises(Unavailable, match="an earlier reading has not ended"):
        second.latest()
    assert len(threads()) == 1


def test_a_thread_that_cannot_be_started_is_reported_and_retried(
    background: BackgroundReading[int], tool: Tool, mocker: MockerFixture
) -> None:
    background_reading._idle.clear()
    start = mocker.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread"))
    with pytest.raises(Unavailable, match="no thread could be started"):
        background.latest()
    mocker.stop(start)
    read_once(background, tool)
    assert tool.runs == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_starts_its_own_reading(tool: Tool, background: BackgroundReading[int]) -> None:
    background.ask()
    assert tool.began.acquire(timeout=LONG_SECONDS)

    def child() -> bool:
        tool.may_end.release()
        background.ask()
        reading = background.answer(within=LONG_SECONDS)
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
    deadline = time.monotonic() + 2 * LONG_SECONDS
    while (status := os.waitpid(pid, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status[1]) == 0


def test_one_thread_makes_one_reading_after_another(
    make: Callable[..., BackgroundReading[int]], tool: Tool
) -> None:
    idents = set()
    background_reading._idle.clear()
    background = make(rest_seconds=0)
    for _ in range(4):
        background.ask()
        assert tool.began.acquire(timeout=LONG_SECONDS)
        idents |= {thread.ident for thread in threads()}
        tool.may_end.release()
        eventually(lambda: background_reading._idle)
    assert len(idents) == 1


def test_an_idle_thread_ends_after_a_while(
    background: BackgroundReading[int], tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    background_reading._idle.clear()
    monkeypatch.setattr(background_reading, "_LINGER_SECONDS", 0.0)
    background.ask()
    assert tool.began.acquire(timeout=LONG_SECONDS)
    thread = threads()[0]
    tool.may_end.release()
    thread.join(LONG_SECONDS)
    assert not thread.is_alive()
    assert not background_reading._idle
