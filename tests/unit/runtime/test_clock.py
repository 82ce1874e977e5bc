"""Timestamps are distinct for each tick, whatever the clock does."""

from __future__ import annotations

import time

import pytest

from fakes import STARTED_AT, FakeClock
from mlflow_sysmetrics.runtime.clock import Stamper, SystemClock


def test_two_ticks_in_one_millisecond_differ() -> None:
    stamper = Stamper(FakeClock())
    assert [stamper.next() - STARTED_AT for _ in range(3)] == [0, 1, 2]


def test_a_small_step_back_is_waited_for() -> None:
    clock = FakeClock()
    stamper = Stamper(clock)
    stamper.next()
    clock.jumped = -500
    assert stamper.next() == STARTED_AT + 1


def test_a_large_step_back_is_believed() -> None:
    clock = FakeClock()
    stamper = Stamper(clock)
    stamper.next()
    clock.jumped = -3_600_000
    assert stamper.next() == STARTED_AT - 3_600_000


def test_a_frozen_time_module_does_not_freeze_our_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert SystemClock().monotonic() > 0
    assert SystemClock().wall() > STARTED_AT


def test_the_system_clock_reads_the_time_of_the_system() -> None:
    clock = SystemClock()
    before = time.time_ns() // 1_000_000
    assert before <= clock.wall() <= time.time_ns() // 1_000_000
    assert clock.monotonic() <= clock.monotonic()
