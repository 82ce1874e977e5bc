"""How long a sender waits after a failure."""

from __future__ import annotations

import pytest

from fakes import not_allowed, unreachable
from mlflow_sysmetrics.runtime.backoff import Rest, asked_for, pause_seconds


def pause(failures: int, reason: Exception) -> float:
    return pause_seconds(failures, reason, lambda: 1.0)


def test_pauses_double_from_one_second_to_a_minute() -> None:
    pauses = [pause(n, unreachable("")) for n in (0, 1, 2, 5, 6, 1000)]
    assert pauses == [1, 2, 4, 32, 60, 60]


def test_wrong_credentials_are_tried_again_slowly_from_the_beginning() -> None:
    assert pause(0, not_allowed("HTTP 401")) == 60


def test_a_server_is_left_alone_as_long_as_it_asks() -> None:
    assert pause(0, unreachable("HTTP 429", retry_after=7)) == 7


def test_what_a_server_asks_for_is_no_reason_to_come_sooner() -> None:
    assert pause(5, unreachable("HTTP 503", retry_after=1)) == 32


@pytest.mark.parametrize(("asked", "granted"), [(86400.0, 600.0), (-5.0, 0.0), (None, 0.0)])
def test_what_a_server_asks_for_is_bounded(asked: float | None, granted: float) -> None:
    assert asked_for(unreachable("HTTP 503", retry_after=asked)) == granted


def test_jitter_spreads_the_pause() -> None:
    assert pause_seconds(2, unreachable(""), lambda: 0.75) == 3


def test_somebody_who_waits_right_after_a_refusal_is_served_a_second_later() -> None:
    """Else `flush(30)` would wait in vain for a rest of a minute."""
    rest = Rest(lambda: 1.0)
    rest.failed(100.0, not_allowed("HTTP 401"))
    rest.shorten(100.2)
    assert rest.until == 101.0
    rest.failed(101.0, unreachable("HTTP 503", retry_after=30.0))
    rest.shorten(101.1)
    assert rest.until == 131.0
