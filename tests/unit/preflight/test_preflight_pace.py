"""Waits follow the pace that was asked for, on a clock that tests move."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.preflight.tries import Pace, Tries


class Time:
    """A clock on which waiting takes no time of ours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> float:
        self.waits.append(seconds)
        self.now += seconds
        return 0.0


def tries_on(time: Time, **pace: Any) -> Tries:
    return Tries(
        Pace(**pace, monotonic=time.monotonic, shortened=time.wait), lambda: None, lambda _fault, _wait: None
    )


def always_down(_seconds: float) -> None:
    raise Fault("HTTP 503", Cause.DOWN)


def test_the_last_wait_goes_on() -> None:
    time = Time()
    with pytest.raises(Fault):
        tries_on(time, max_retries=5, backoff=(1, 2)).ask(always_down)
    assert time.waits == [1, 2, 2, 2]


def test_no_wait_goes_beyond_the_deadline() -> None:
    time = Time()
    tries = tries_on(time, max_retries=9, backoff=(40,), deadline=100)
    with pytest.raises(Fault):
        tries.ask(always_down)
    assert time.waits == [40, 40]
    assert "deadline of 100 s" in tries.gave_up


def test_a_try_gets_no_more_than_what_is_left() -> None:
    time = Time()
    given: list[float] = []
    tries = tries_on(time, timeout=30, deadline=50)
    time.now = 40
    tries.ask(given.append)
    assert given == [10]


def test_what_may_not_pass_is_not_tried_again() -> None:
    def refused(_seconds: float) -> None:
        raise Fault("HTTP 401", Cause.UNAUTHENTICATED)

    time = Time()
    tries = tries_on(time)
    with pytest.raises(Fault):
        tries.ask(refused)
    assert (time.waits, len(tries.made)) == ([], 1)


def test_tries_are_counted_anew_in_each_step() -> None:
    tries = tries_on(Time())
    for step in (1, 1, 2):
        tries.step = step
        tries.ask(lambda _seconds: None)
    assert [(one.step, one.n) for one in tries.made] == [(1, 1), (1, 2), (2, 1)]


def test_an_error_in_our_own_code_is_listed_and_not_tried_again() -> None:
    def broken(_seconds: float) -> None:
        raise ZeroDivisionError

    tries = tries_on(Time())
    with pytest.raises(ZeroDivisionError):
        tries.ask(broken)
    assert [one.error for one in tries.made] == ["ZeroDivisionError"]


def test_the_library_that_waits_adds_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Fault):
        tries_on(Time(), max_retries=2).ask(always_down)
    assert not [one for one in caplog.records if one.name.startswith("stamina")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": 0},
        {"max_retries": 2.5},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"deadline": -1},
        {"backoff": ()},
        {"backoff": (1, -1)},
        {"backoff": 5},
        {"backoff": "10"},
        {"backoff": (1, None)},
    ],
)
def test_a_pace_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Pace(**wrong)
