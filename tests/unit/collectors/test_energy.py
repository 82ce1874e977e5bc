"""Energy: RAPL counters that wrap, restart, show a package twice, or are not readable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from mlflow_sysmetrics.collectors import energy_linux
from mlflow_sysmetrics.collectors.energy_linux import EnergyLinux
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths are those of Linux, with colons in names")

RANGE = 262_143_328_850  # 262 kJ, as on most Intel processors
POWERCAP = "sys/class/powercap"
ENERGY, POWER = "cpu_energy_watt_hours", "cpu_power_watts"


def zone(root: Path, name: str, package: str, joules: float, range_uj: object = RANGE) -> Path:
    """Makes the directory of a zone and returns the path of its counter."""
    directory = root / POWERCAP / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "name").write_text(f"{package}\n")
    (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (directory / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return directory / "energy_uj"


def said(collector: EnergyLinux, now: float) -> dict[str, float]:
    return {sample.key: sample.value for sample in collector.collect(now)}


def test_energy_and_power_are_summed_over_packages(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1000)
    zone(tmp_path, "intel-rapl:1", "package-1", 5)
    collector = EnergyLinux(Host(root=tmp_path))
    assert said(collector, 0) == {ENERGY: 0}
    zone(tmp_path, "intel-rapl:0", "package-0", 1120)
    zone(tmp_path, "intel-rapl:1", "package-1", 65)
    assert said(collector, 2) == {ENERGY: 180 / 3600, POWER: 90}


def test_power_covers_the_time_since_the_last_sufficiently_old_reading(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    assert said(collector, 0.1) == {ENERGY: 0}
    zone(tmp_path, "intel-rapl:0", "package-0", 60)
    power = next(sample for sample in collector.collect(0.5) if sample.key == POWER)
    assert (power.value, power.span) == (120, 0.5)


def test_a_package_shown_by_both_interfaces_counts_once(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 50)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 70)
    assert said(collector, 1)[POWER] == 50


def test_the_second_interface_is_used_if_the_first_fails(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter.write_text("")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    assert said(EnergyLinux(Host(root=tmp_path)), 0) == {ENERGY: 0}


def test_package_parts_and_the_platform_zone_do_not_count(tmp_path: Path) -> None:
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "psys",
    }
    for name, package in names.items():
        zone(tmp_path, name, package, 0)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    for name, package in names.items():
        zone(tmp_path, name, package, 50)
    assert said(collector, 1)[POWER] == 50


def test_a_host_without_rapl_is_unavailable(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 0)
    with pytest.raises(Unavailable, match="no RAPL package in /sys/class/powercap"):
        EnergyLinux(Host(root=tmp_path))


def test_the_message_about_a_root_only_counter_includes_the_remedy(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    mocker.patch.object(energy_linux, "read_short", side_effect=PermissionError(13, "Permission denied"))
    with pytest.raises(
        Unavailable,
        match=r"^/sys/class/powercap/intel-rapl:0/energy_uj is readable by root only: ask the administrator",
    ):
        EnergyLinux(Host(root=tmp_path))


def test_an_unreadable_package_makes_the_collector_unavailable(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    counter.unlink()
    counter.mkdir()
    with pytest.raises(Unavailable, match=r"^/sys/class/powercap/intel-rapl:1/energy_uj: Is a directory$"):
        EnergyLinux(Host(root=tmp_path))


@pytest.mark.parametrize("text", ["", "50000", "garbage\n", "-5\n", "9" * 30 + "\n"])
def test_a_failing_package_skips_the_tick_but_loses_no_energy(tmp_path: Path, text: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    zone(tmp_path, "intel-rapl:1", "package-1", 0)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 50).write_text(text)
    zone(tmp_path, "intel-rapl:1", "package-1", 50)
    assert said(collector, 1) == {}
    assert collector.gaps[0].startswith("no energy at the last tick")
    zone(tmp_path, "intel-rapl:0", "package-0", 100)
    zone(tmp_path, "intel-rapl:1", "package-1", 100)
    assert said(collector, 2) == {ENERGY: 200 / 3600, POWER: 100}
    assert collector.gaps == ()


def test_a_package_that_vanishes_during_construction_is_unavailable(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    mocker.patch(
        "mlflow_sysmetrics.collectors.energy_linux.read_short", side_effect=OSError(19, "No such device")
    )
    with pytest.raises(Unavailable, match="No such device"):
        EnergyLinux(Host(root=tmp_path))


def test_an_interval_with_a_possible_second_wrap_does_not_count(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 100)
    assert said(collector, 3600) == {}
    assert collector.gaps == ("no energy over the last 3600 s: a counter may have wrapped unseen",)
    zone(tmp_path, "intel-rapl:0", "package-0", 150)
    assert said(collector, 3601) == {ENERGY: 50 / 3600, POWER: 50}


def test_a_counter_that_restarts_yields_nothing_at_that_tick(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 200)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 10)
    assert said(collector, 1) == {}
    zone(tmp_path, "intel-rapl:0", "package-0", 60)
    assert said(collector, 2)[POWER] == 50


@pytest.mark.parametrize("range_uj", ["", "garbage", "-1"])
def test_an_invalid_range_affects_only_wrapped_readings(tmp_path: Path, range_uj: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0, range_uj)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    zone(tmp_path, "intel-rapl:0", "package-0", 50, range_uj)
    assert said(collector, 1)[POWER] == 50
    zone(tmp_path, "intel-rapl:0", "package-0", 10, range_uj)
    assert said(collector, 2) == {}


def dies(root: Path, joules: float, *apart: float, names: str = "package-0-die-{}") -> None:
    """Writes one zone per value of `apart`, which shows `joules` and that much more."""
    for place, more in enumerate(apart):
        zone(root, f"intel-rapl:{place}", names.format(place), joules + more, 65_532_610_987)


def cpu(root: Path, number: int, package: int) -> None:
    directory = root / f"sys/devices/system/cpu/cpu{number}/topology"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "physical_package_id").write_text(f"{package}\n")


@pytest.mark.parametrize(
    "apart",
    [
        (0, 0.0003),
        (0, 0, 0, 0),
        (0.5, 0),  # read the other way round
        (0, 1.5),  # interrupted between two reads
    ],
)
def test_dies_that_show_one_counter_count_once(tmp_path: Path, apart: tuple[float, ...]) -> None:
    dies(tmp_path, 10_000, *apart)
    collector = EnergyLinux(Host(root=tmp_path))
    found = {}
    for now in range(1, 5):
        dies(tmp_path, 10_000 + 68 * now, *apart)
        found = said(collector, now)
    assert found[POWER] == pytest.approx(68)
    assert found[ENERGY] == pytest.approx(4 * 68 / 3600)


def test_dies_with_counters_of_their_own_are_summed(tmp_path: Path) -> None:
    dies(tmp_path, 10_000, 0, 500)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    dies(tmp_path, 10_068, 0, 500)  # equal load
    assert said(collector, 1)[POWER] == pytest.approx(136)


def test_dies_that_were_in_step_by_chance_are_summed_in_the_end(tmp_path: Path) -> None:
    dies(tmp_path, 10_000, 0, 1)
    collector = EnergyLinux(Host(root=tmp_path))
    for now in range(5):
        dies(tmp_path, 10_000 + 100 * now, 0, 1 - 20 * now)
        found = said(collector, now)
    assert found[POWER] == pytest.approx(180)


def test_two_sockets_of_equal_load_are_summed(tmp_path: Path) -> None:
    dies(tmp_path, 10_000, 0, 0.0003, names="package-{}")
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    dies(tmp_path, 10_068, 0, 0.0003, names="package-{}")
    assert said(collector, 1)[POWER] == pytest.approx(136)


@pytest.mark.parametrize(("packages", "watts"), [(1, 68), (2, 136)])
def test_zones_of_more_packages_than_there_are_may_show_one_counter(
    tmp_path: Path, packages: int, watts: float
) -> None:
    for number in range(8):
        cpu(tmp_path, number, number % packages)
    dies(tmp_path, 10_000, 0, 0.0003, names="package-{}")
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    dies(tmp_path, 10_068, 0, 0.0003, names="package-{}")
    assert said(collector, 1)[POWER] == pytest.approx(watts)


def test_two_sockets_of_two_mirrored_dies_each_count_twice(tmp_path: Path) -> None:
    def write(joules: float) -> None:
        for place, (package, die, life) in enumerate(((0, 0, 0), (0, 1, 0), (1, 0, 700), (1, 1, 700))):
            zone(tmp_path, f"intel-rapl:{place}", f"package-{package}-die-{die}", joules + life)

    write(10_000)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    write(10_068)
    assert said(collector, 1)[POWER] == pytest.approx(136)


def test_a_zone_of_the_whole_package_contains_its_dies(tmp_path: Path) -> None:
    zones = {
        "intel-rapl:0": "package-0-die-0",
        "intel-rapl:1": "package-0-die-1",
        "intel-rapl-mmio:0": "package-0",
    }
    for name, package in zones.items():
        zone(tmp_path, name, package, 10_000)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    for (name, package), joules in zip(zones.items(), (30, 40, 70), strict=True):
        zone(tmp_path, name, package, 10_000 + joules)
    assert said(collector, 1)[POWER] == pytest.approx(70)


def test_mirrored_counters_wrap_together(tmp_path: Path) -> None:
    dies(tmp_path, 65_500, 0, 0.0003)
    collector = EnergyLinux(Host(root=tmp_path))
    said(collector, 0)
    dies(tmp_path, 65_532.6, 0, 0)
    (tmp_path / POWERCAP / "intel-rapl:1/energy_uj").write_text("300\n")  # the second read is after the wrap
    assert said(collector, 1)[POWER] == pytest.approx(32.6)
    dies(tmp_path, 67.4, 0, 0.0003)
    assert said(collector, 2)[POWER] == pytest.approx(67.4, abs=0.1)
