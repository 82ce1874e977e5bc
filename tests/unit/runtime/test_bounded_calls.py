"""A bounded call returns or raises like the call itself, or times out."""

from __future__ import annotations

import contextvars
import threading

import pytest

from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, PendingCall, bounded

LONG = 60.0  # bounds a test whose thread never ends; normally microseconds

_workspace: contextvars.ContextVar[str] = contextvars.ContextVar("workspace")


def test_the_value_is_returned() -> None:
    assert bounded(lambda: 3, LONG) == 3


def test_an_error_is_raised_in_the_calling_thread() -> None:
    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        bounded(fail, LONG)


def test_a_hanging_call_times_out_and_continues_in_its_thread() -> None:
    released = threading.Event()
    pending = PendingCall(lambda: released.wait(LONG), "sysmetrics-test")
    with pytest.raises(CallTimeout):
        pending.result(0.01)
    released.set()
    assert pending.result(LONG) is True


def test_a_time_that_is_already_over_times_out() -> None:
    released = threading.Event()
    with pytest.raises(CallTimeout):
        bounded(lambda: released.wait(LONG), -1.0)
    released.set()


def test_the_call_sees_the_context_of_its_caller() -> None:
    _workspace.set("team")
    assert bounded(_workspace.get, LONG) == "team"


def test_the_thread_has_the_given_name() -> None:
    assert bounded(lambda: threading.current_thread().name, LONG, name="sysmetrics-test") == "sysmetrics-test"


def test_a_result_that_arrives_too_late_is_passed_on_in_its_thread() -> None:
    released, passed, late = threading.Event(), threading.Event(), []

    def receive(result: object) -> None:
        late.append((result, threading.current_thread().name))
        passed.set()

    with pytest.raises(CallTimeout):
        bounded(lambda: released.wait(LONG), 0.01, name="sysmetrics-test", late=receive)
    released.set()
    assert passed.wait(LONG)
    assert late == [(True, "sysmetrics-test")]


def test_a_result_in_time_is_only_returned() -> None:
    late: list[int] = []
    assert bounded(lambda: 3, LONG, late=late.append) == 3
    assert late == []


def test_a_call_that_has_returned_cannot_be_abandoned() -> None:
    pending = PendingCall(lambda: 3, "sysmetrics-test")
    assert pending.result(LONG) == 3
    assert not pending.abandon()
    assert pending.result(LONG) == 3
