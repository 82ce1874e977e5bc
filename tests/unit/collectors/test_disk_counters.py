"""Disk I/O: the stat file of one device."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.collectors.disk_io_linux import DeviceWork, parse_stat, work_between


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
        (DeviceWork(10, 20, 30), DeviceWork(11, 22, 33), DeviceWork(1, 2, 3)),
        (DeviceWork(10, 20, 30), DeviceWork(9, 22, 33), None),
        (DeviceWork(10, 20, 30), DeviceWork(11, 19, 33), None),
        (DeviceWork(0, 0, 2**32 - 5), DeviceWork(0, 0, 7), DeviceWork(0, 0, 12)),  # wrapped
        (DeviceWork(0, 0, 5000), DeviceWork(0, 0, 4000), DeviceWork(0, 0, None)),  # decreased
        (DeviceWork(0, 0, None), DeviceWork(0, 0, 7), DeviceWork(0, 0, None)),
        (DeviceWork(0, 0, 7), DeviceWork(0, 0, None), DeviceWork(0, 0, None)),
    ],
)
def test_computes_the_work_between_two_readings(
    before: DeviceWork, now: DeviceWork, expected: DeviceWork | None
) -> None:
    assert work_between(before, now) == expected
