"""Locks and events that our threads share with the program."""

from __future__ import annotations

import threading

import pytest

from mlflow_sysmetrics.runtime import native
from mlflow_sysmetrics.runtime.native import Condition, Event, RLock
from mlflow_sysmetrics.runtime.threads import start_thread
from watching import LONG_SECONDS


def test_an_event_wakes_all_that_wait() -> None:
    event, woken = Event(), [threading.Event() for _ in range(3)]
    for one in woken:
        start_thread(lambda one=one: one.set() if event.wait(LONG_SECONDS) else None, "sysmetrics-test")  # type: ignore[misc]
    event.set()
    assert all(one.wait(LONG_SECONDS) for one in woken)
    assert event.is_set()
    assert not event._waiting


def test_a_wait_in_vain_leaves_nothing_behind() -> None:
    event = Event()
    assert not event.wait(0.001)
    assert not event.wait(-1)
    assert not event._waiting
    event.set()
    assert event.wait()
    event.clear()
    assert not event.wait(0)


def test_an_event_can_be_set_while_it_is_being_set() -> None:
    """A signal handler may interrupt `set` after any step, and set the same event."""
    event, waiting = Event(), native.Lock()
    waiting.acquire()
    event._waiting.append(waiting)
    event.set()
    event.set()
    assert waiting.acquire(blocking=False)


def test_a_lock_is_re_entrant_and_excludes_other_threads() -> None:
    lock, inside = RLock(), threading.Event()

    def other() -> None:
        with lock:
            inside.set()

    with lock, lock:
        start_thread(other, "sysmetrics-test")
        assert not inside.wait(0.02)
    assert inside.wait(LONG_SECONDS)


def test_entering_a_lock_runs_no_python() -> None:
    """Between two lines of Python, a signal handler could raise and leave the lock taken for ever."""
    lock = RLock()
    assert type(type(lock).__enter__).__name__ == "member_descriptor"
    assert lock.__enter__.__self__ is lock._lock  # type: ignore[attr-defined]


def test_a_lock_is_hidden_from_those_who_replace_locks_in_attributes() -> None:
    with pytest.raises(TypeError):
        vars(Condition())


def test_a_condition_tells_its_own_threads_and_the_program() -> None:
    condition, told = Condition(), threading.Event()

    def wait() -> None:
        with condition, condition:  # re-entered, as by a signal handler
            while not state:
                condition.wait()
            told.set()

    state: list[int] = []
    start_thread(wait, "sysmetrics-test")
    with condition:
        change = condition.next_change()
        state.append(1)
        condition.notify_all()
    assert change.wait(LONG_SECONDS)
    assert told.wait(LONG_SECONDS)
