"""Disk I/O of all disks on hosts other than Linux."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
from pytest_mock import MockerFixture

from mlflow_sysmetrics.collectors.disk_io_psutil import DiskIoPsutil
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

READ, WRITE = "disk_read_megabytes_per_second", "disk_write_megabytes_per_second"


def counters(read: float, written: float) -> SimpleNamespace:
    return SimpleNamespace(read_bytes=read * 1e6, write_bytes=written * 1e6)


def said(mocker: MockerFixture, *readings: object) -> dict[str, float]:
    mocker.patch.object(psutil, "disk_io_counters", side_effect=readings)
    one = DiskIoPsutil(Host())
    assert list(one.collect(0)) == []
    return {sample.key: sample.value for sample in one.collect(2)}


def test_rates_are_the_growth_per_second(mocker: MockerFixture) -> None:
    assert said(mocker, counters(10, 10), counters(14, 11)) == {READ: 2, WRITE: 0.5}


def test_a_counter_that_decreases_yields_nothing(mocker: MockerFixture) -> None:
    assert said(mocker, counters(10, 10), counters(14, 9)) == {}


def test_removed_disks_are_unavailable(mocker: MockerFixture) -> None:
    with pytest.raises(Unavailable, match=r"psutil\.disk_io_counters: no disk"):
        said(mocker, counters(1, 1), None)


@pytest.mark.parametrize("error", [OSError("not here"), RuntimeError("not here"), psutil.AccessDenied()])
def test_an_error_of_psutil_makes_it_unavailable(mocker: MockerFixture, error: Exception) -> None:
    mocker.patch.object(psutil, "disk_io_counters", side_effect=error)
    with pytest.raises(Unavailable, match=r"psutil\.disk_io_counters: "):
        DiskIoPsutil(Host())
