"""Disk I/O: what is computed from device counters, and what happens when devices fail, vanish and return."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_machine import ROOT, Machine, devices, stat, values, with_root_on_sda

from mlflow_sysmetrics.errors import Unavailable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")

READ, WRITE, BUSY = (
    "disk_read_megabytes_per_second",
    "disk_write_megabytes_per_second",
    "disk_busy_percentage",
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return with_root_on_sda(tmp_path)


Growth = Callable[[str, str], dict[str, float]]


@pytest.fixture
def growth(machine: Machine) -> Growth:
    """Returns the values two seconds after the counters of sda changed."""

    def between(before: str, after: str) -> dict[str, float]:
        machine.counts("sda", before)
        collector = machine.collector()
        values(collector, 0)
        machine.counts("sda", after)
        return values(collector, 2)

    return between


def test_rates_and_busy_time(growth: Growth) -> None:
    found = growth(stat(100, 50, 1000), stat(104, 51, 1500))
    assert found == pytest.approx({READ: 2, WRITE: 0.5, BUSY: 25}, abs=0.001)


def test_rates_cover_the_time_since_the_last_sufficiently_old_reading(machine: Machine) -> None:
    collector = machine.collector()
    assert values(collector, 0) == {}
    assert values(collector, 0.1) == {}
    machine.counts("sda", stat(1))
    samples = list(collector.collect(0.5))
    assert samples[0].value == pytest.approx(2, rel=0.001)
    assert {sample.span for sample in samples} == {0.5}


def test_busy_time_is_at_most_100_percent(growth: Growth) -> None:
    assert growth(stat(busy=1000), stat(busy=61_000))[BUSY] == 100


def test_a_device_without_a_time_counter_has_no_busy_time(growth: Growth) -> None:
    assert set(growth(stat(1, 1, 0), stat(2, 2, 0))) == {READ, WRITE}


def test_a_counter_that_decreases_yields_nothing_at_that_tick(growth: Growth) -> None:
    assert growth(stat(100), stat(50)) == {}


def test_bytes_are_summed_and_busy_time_is_the_maximum(machine: Machine) -> None:
    machine.mounts(ROOT + "21 20 8:16 / /data rw - xfs /dev/sdb rw\n")
    machine.device("sdb", "8:16", physical=True)
    collector = machine.collector("/data")
    values(collector, 0)
    machine.counts("sda", stat(10, 0, 101))
    machine.counts("sdb", stat(20, 0, 301))
    assert values(collector, 1) == pytest.approx({READ: 30, WRITE: 0, BUSY: 30}, abs=0.001)


def test_a_clock_that_goes_backwards_gives_no_rate(machine: Machine) -> None:
    collector = machine.collector()
    values(collector, 100)
    assert values(collector, 50) == {}


def test_a_failing_device_is_named_and_affects_no_other(machine: Machine) -> None:
    machine.mounts(ROOT + "21 20 8:16 / /data rw - ext4 /dev/sdb rw\n")
    machine.device("sdb", "8:16")
    collector = machine.collector("/data")
    values(collector, 0)
    machine.counts("sda", "garbage")
    machine.counts("sdb", stat(3))
    assert values(collector, 1)[READ] == pytest.approx(3, rel=0.001)
    assert collector.gaps == (
        '/sys/class/block/sda/stat: "garbage" does not have the counters of a block device',
    )


def test_a_failed_reading_lengthens_the_span_of_the_next(machine: Machine) -> None:
    collector = machine.collector()
    values(collector, 0)
    file = machine.counts("sda", "")
    assert values(collector, 1) == {}
    file.write_text(stat(50))
    assert values(collector, 2)[READ] == pytest.approx(25, rel=0.001)  # looked up again immediately
    file.write_text(stat(51))
    assert values(collector, 3)[READ] == pytest.approx(1, rel=0.001)
    assert collector.gaps == ()


def test_an_unplugged_disk_is_unavailable_at_the_second_tick(machine: Machine) -> None:
    collector = machine.collector()
    values(collector, 0)
    for path in ("sys/class/block/sda1/stat", "sys/class/block/sda/stat", "sys/block/sda/device/uevent"):
        (machine.root / path).unlink()
    (machine.root / "sys/block/sda/device").rmdir()
    assert values(collector, 1) == {}
    with pytest.raises(Unavailable, match="no disk in /sys/block"):
        values(collector, 2)


def test_a_disk_mounted_later_counts_from_its_first_reading(machine: Machine) -> None:
    collector = machine.collector("/data")
    values(collector, 0)
    machine.mounts(ROOT + "21 20 8:16 / /data rw - ext4 /dev/sdb rw\n")
    machine.device("sdb", "8:16")
    machine.counts("sdb", stat(100))
    assert values(collector, 60)[READ] == 0
    machine.counts("sdb", stat(102))
    assert values(collector, 61)[READ] == pytest.approx(2, rel=0.001)


def test_a_disk_unreadable_at_first_is_unavailable(machine: Machine) -> None:
    machine.counts("sda", "")
    with pytest.raises(Unavailable, match="/sys/class/block/sda/stat"):
        machine.collector()


def test_a_loop_device_counts_as_the_disk_of_its_file(tmp_path: Path) -> None:
    machine = with_root_on_sda(tmp_path)
    machine.mounts(ROOT + "31 20 7:0 / /data rw - ext4 /dev/loop0 rw\n")
    machine.device("loop0", "7:0")
    machine.write("sys/class/block/loop0/loop/backing_file", "/var/images/data.img\n")
    assert devices(machine.collector("/data")) == ["sda"]
