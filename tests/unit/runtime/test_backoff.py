"""Pauses after failures."""

from __future__ import annotations

import pytest

from fakes import not_allowed, unreachable
from mlflow_sysmetrics.runtime.backoff import Backoff, asked_for, doubled, pause_seconds


def pause(failures: int, reason: Exception) -> float:
    return pause_seconds(failures, reason, lambda: 1.0)


def test_pauses_double_from_one_second_to_a_minute() -> None:
    pauses = [pause(n, unreachable("")) for n in (0, 1, 2, 5, 6, 1000)]
    assert pauses == [1, 2, 4, 32, 60, 60]


def test_wrong_credentials_are_retried_slowly_from_the_start() -> None:
    assert pause(0, not_allowed("HTTP 401")) == 60


def test_retry_after_lengthens_the_pause() -> None:
    assert pause(0, unreachable("HTTP 429", retry_after=7)) == 7


def test_retry_after_does_not_shorten_the_pause() -> None:
    assert pause(5, unreachable("HTTP 503", retry_after=1)) == 32


@pytest.mark.parametrize(("asked", "granted"), [(86400.0, 600.0), (-5.0, 0.0), (None, 0.0)])
def test_retry_after_is_bounded(asked: float | None, granted: float) -> None:
    assert asked_for(unreachable("HTTP 503", retry_after=asked)) == granted


def test_jitter_spreads_the_pause() -> None:
    assert pause_seconds(2, unreachable(""), lambda: 0.75) == 3


def test_shorten_allows_an_attempt_one_second_after_the_last() -> None:
    """Otherwise `flush(30)` would time out during a pause of one minute."""
    backoff = Backoff(lambda: 1.0)
    backoff.failed(100.0, not_allowed("HTTP 401"))
    backoff.shorten(100.2)
    assert backoff.until == 101.0
    backoff.failed(101.0, unreachable("HTTP 503", retry_after=30.0))
    backoff.shorten(101.1)
    assert backoff.until == 131.0


def test_a_pause_doubles_within_its_bounds() -> None:
    pauses = [doubled(n, first_seconds=0.5, longest_seconds=300.0) for n in (0, 1, 2, 10, 10_000)]
    assert pauses == [0.5, 1.0, 2.0, 300.0, 300.0]


def test_a_success_ends_the_pause_and_starts_afresh() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(100.0, unreachable(""))
    backoff.failed(101.0, unreachable(""))
    backoff.reset()
    assert backoff.until < 0
    backoff.failed(102.0, unreachable(""))
    assert backoff.until == 103.0
