"""Disk I/O: the stat file of one device."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.collectors.disk_io_linux import DeviceWork, busy_between, parse_stat


def test_a_sector_is_512_bytes() -> None:
    assert parse_stat(b"1 2 10 4 5 6 20 8 0 77 11\n") == DeviceWork(5120, 10_240, 77)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1 2 3 4 5 6 7 8 9 10",  # the last number may be truncated
        b"a b c d e f g h i j k",
        b"1 2 -3 4 5 6 7 8 9 10 11",
        b"1 2 3 4 5 6 %d 8 9 10 11" % 2**64,
        b"\xff\xfe",
    ],
)
def test_invalid_counters_are_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"does not have the counters|invalid literal"):
        parse_stat(text)


def test_a_driver_that_counts_no_time_has_no_busy_time() -> None:
    assert parse_stat(b"1 2 10 4 5 6 20 8 0 0 0\n").busy_ms is None
    assert parse_stat(b"0 0 0 0 0 0 0 0 0 0 0\n").busy_ms == 0


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (30, 33, 3),
        (2**32 - 5, 7, 12),  # wrapped
        (5000, 4000, None),  # decreased
        (None, 7, None),
        (7, None, None),
    ],
)
def test_computes_the_busy_time_between_two_readings(
    before: int | None, now: int | None, expected: int | None
) -> None:
    assert busy_between(before, now) == expected
