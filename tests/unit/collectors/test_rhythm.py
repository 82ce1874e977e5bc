"""When to read: laps of rates, pauses of expensive sources, and fields of the kernel's text files."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.collectors.rhythm import Lap, Pause


def test_a_lap_begins_with_the_first_call() -> None:
    lap = Lap()
    assert lap.seconds(100.0) is None
    assert lap.seconds(101.5) == 1.5
    assert lap.seconds(102.0) == 0.5


def test_a_lap_that_is_too_short_continues() -> None:
    lap = Lap()
    lap.seconds(100.0)
    assert lap.seconds(100.1) is None
    assert lap.seconds(100.2) == pytest.approx(0.2)


def test_a_clock_that_goes_backwards_begins_a_new_lap() -> None:
    lap = Lap()
    lap.seconds(100.0)
    assert lap.seconds(50.0) is None
    assert lap.seconds(51.0) == 1.0


def test_a_pause_lasts_until_its_seconds_have_passed() -> None:
    pause = Pause(30.0, read=False)
    moments = (0.0, 29.9, 30.0, 59.0, 61.0)
    assert [pause.renew_if_over(now) for now in moments] == [True, False, True, False, True]


def test_a_source_read_at_construction_pauses_from_the_first_call() -> None:
    pause = Pause(30.0)
    assert [pause.renew_if_over(now) for now in (100.0, 129.0, 130.0)] == [False, False, True]


def test_a_clock_that_goes_backwards_ends_a_pause() -> None:
    pause = Pause(30.0)
    pause.renew_if_over(1000.0)
    assert pause.renew_if_over(10.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"MemFree:  12 kB\n", 12),
        (b"MemTotal: 1 kB\nMemFree:\t 12 kB\nx 1\n", 12),
        (b"NotMemFree: 1 kB\nMemFree: 2 kB\n", 2),
        (b"MemTotal: 1 kB\n", None),
        (b"MemFree: 12", None),  # truncated: more digits may follow
        (b"MemFree:\n", None),
        (b"MemFree: many\n", None),
        (b"", None),
    ],
)
def test_parses_a_number_after_its_label(text: bytes, number: int | None) -> None:
    assert number_after(b"MemFree:", text) == number
