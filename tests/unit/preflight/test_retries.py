"""Retries follow their schedule, on a clock that tests move."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.preflight.retries import Retries, RetrySchedule


class Time:
    """A clock on which pauses take no real time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> float:
        self.pauses.append(seconds)
        self.now += seconds
        return 0.0


def retries_on(time: Time, **schedule: Any) -> Retries:
    return Retries(
        RetrySchedule(**schedule, monotonic=time.monotonic, shortened=time.pause),
        lambda: None,
        lambda _fault, _pause: None,
    )


def always_down(_seconds: float) -> None:
    raise Fault("HTTP 503", Cause.DOWN)


def test_the_last_pause_repeats() -> None:
    time = Time()
    with pytest.raises(Fault):
        retries_on(time, max_retries=5, backoff=(1, 2)).call(always_down)
    assert time.pauses == [1, 2, 2, 2]


def test_no_pause_exceeds_the_deadline() -> None:
    time = Time()
    retries = retries_on(time, max_retries=9, backoff=(40,), deadline=100)
    with pytest.raises(Fault):
        retries.call(always_down)
    assert time.pauses == [40, 40]
    assert "deadline of 100 s" in retries.gave_up


def test_an_attempt_gets_at_most_the_time_left() -> None:
    time = Time()
    given: list[float] = []
    retries = retries_on(time, timeout=30, deadline=50)
    time.now = 40
    retries.call(given.append)
    assert given == [10]


def test_a_permanent_fault_is_not_retried() -> None:
    def refused(_seconds: float) -> None:
        raise Fault("HTTP 401", Cause.UNAUTHENTICATED)

    time = Time()
    retries = retries_on(time)
    with pytest.raises(Fault):
        retries.call(refused)
    assert (time.pauses, len(retries.made)) == ([], 1)


def test_attempts_are_numbered_within_each_step() -> None:
    retries = retries_on(Time())
    for step in (1, 1, 2):
        retries.step = step
        retries.call(lambda _seconds: None)
    assert [(one.step, one.n) for one in retries.made] == [(1, 1), (1, 2), (2, 1)]


def test_a_bug_is_listed_and_not_retried() -> None:
    def broken(_seconds: float) -> None:
        raise ZeroDivisionError

    retries = retries_on(Time())
    with pytest.raises(ZeroDivisionError):
        retries.call(broken)
    assert [one.error for one in retries.made] == ["ZeroDivisionError"]


def test_stamina_adds_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Fault):
        retries_on(Time(), max_retries=2).call(always_down)
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
def test_an_invalid_schedule_is_rejected_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(wrong))} must be "):
        RetrySchedule(**wrong)


def test_the_deadline_counts_from_the_first_possible_request() -> None:
    """What comes before, such as importing MLflow from a slow disk, is not the server's time."""
    time = Time()
    retries = retries_on(time, deadline=10, timeout=30)
    time.now += 1000
    retries.begin()
    assert retries.call(lambda seconds: seconds) == 10
    assert retries.elapsed == 0


def test_what_is_left_out_does_not_count_against_the_deadline() -> None:
    """A plugin for credentials may take a while."""
    time = Time()
    retries = retries_on(time, deadline=10, timeout=30)
    retries.begin()
    time.now += 25
    retries.leave_out(24)
    assert retries.remaining == 9


def test_no_attempt_begins_after_the_deadline() -> None:
    """A request whose timeout is 0 s would be refused by requests, in words of its own."""
    time = Time()
    retries = retries_on(time, deadline=10)
    time.now += 11
    with pytest.raises(Fault, match=r"^the deadline of 10 s has passed$"):
        retries.call(lambda _: pytest.fail("there is no time left"))
    assert retries.gave_up
