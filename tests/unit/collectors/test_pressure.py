"""Pressure: the time lost to waiting for a resource."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_machines import group_v2, tree, values

from mlflow_sysmetrics.collectors.pressure_linux import PressureLinux, parse_pressure
from mlflow_sysmetrics.errors import Unavailable


def psi(some: int) -> str:
    return (
        f"some avg10=0.00 avg60=0.00 avg300=0.80 total={some}\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=77\n"
    )


def host_pressure(cpu: int, memory: int, io: int) -> dict[str, str]:
    return {
        f"proc/pressure/{name}": psi(some) for name, some in (("cpu", cpu), ("memory", memory), ("io", io))
    }


def test_without_a_group_the_pressure_is_that_of_the_host(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(0, 0, 0)))
    assert values(one, 0) == {}
    tree(tmp_path, host_pressure(500_000, 200_000, 1_000_000))
    assert values(one, 2) == {
        "cpu_pressure_percentage": 25,
        "memory_pressure_percentage": 10,
        "io_pressure_percentage": 50,
    }


def test_with_a_group_the_pressure_is_that_of_the_group(tmp_path: Path) -> None:
    own = {f"sys/fs/cgroup/job/{name}.pressure": psi(0) for name in ("cpu", "memory", "io")}
    one = PressureLinux(tree(tmp_path, {**host_pressure(0, 0, 0), **group_v2(), **own}))
    values(one, 0)
    tree(tmp_path, {**host_pressure(900_000, 0, 0), "sys/fs/cgroup/job/cpu.pressure": psi(100_000)})
    assert values(one, 1)["cpu_pressure_percentage"] == 10


def test_a_group_with_pressure_disabled_shows_that_of_the_host(tmp_path: Path) -> None:
    own = {"sys/fs/cgroup/job/cpu.pressure": ""}
    one = PressureLinux(tree(tmp_path, {**host_pressure(0, 0, 0), **group_v2(), **own}))
    values(one, 0)
    tree(tmp_path, host_pressure(300_000, 0, 0))
    assert values(one, 1)["cpu_pressure_percentage"] == 30
    assert one.gaps == ("the pressure is the host's: the cgroup /job has none",)


def test_a_missing_resource_is_named_and_affects_no_other(tmp_path: Path) -> None:
    host = tree(tmp_path, host_pressure(0, 0, 0))
    (tmp_path / "proc/pressure/io").unlink()
    one = PressureLinux(host)
    values(one, 0)
    assert set(values(one, 1)) == {"cpu_pressure_percentage", "memory_pressure_percentage"}
    assert one.gaps == ("no io pressure: /proc/pressure/io: No such file or directory",)


def test_a_kernel_without_pressure_is_unavailable_and_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="/proc/pressure/cpu: No such file"):
        PressureLinux(tree(tmp_path, {}))


def test_a_failed_reading_lengthens_the_span_of_the_next(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(0, 0, 0)))
    values(one, 0)
    tree(tmp_path, {**host_pressure(0, 0, 100_000), "proc/pressure/cpu": "garbage\n"})
    assert values(one, 1) == {"memory_pressure_percentage": 0, "io_pressure_percentage": 10}
    tree(tmp_path, host_pressure(900_000, 0, 100_000))
    assert one.gaps == (f'{tmp_path}/proc/pressure/cpu: "garbage" is not a pressure file',)
    assert values(one, 2)["cpu_pressure_percentage"] == 45
    assert one.gaps == ()
    tree(tmp_path, host_pressure(910_000, 0, 100_000))
    assert values(one, 3)["cpu_pressure_percentage"] == 1


def test_a_total_that_decreases_is_unknown(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(500, 0, 0)))
    values(one, 0)
    tree(tmp_path, host_pressure(100, 0, 0))
    assert "cpu_pressure_percentage" not in values(one, 1)


def test_it_is_at_most_100_percent(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(0, 0, 0)))
    values(one, 0)
    tree(tmp_path, host_pressure(1_499_000, 0, 0))
    assert values(one, 1)["cpu_pressure_percentage"] == 100


def test_growth_beyond_clock_tolerance_is_rejected(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(0, 0, 0)))
    values(one, 0)
    tree(tmp_path, host_pressure(1_501_000, 0, 0))
    assert "cpu_pressure_percentage" not in values(one, 1)


def test_if_no_resource_can_be_read_it_is_unavailable(tmp_path: Path) -> None:
    one = PressureLinux(tree(tmp_path, host_pressure(0, 0, 0)))
    values(one, 0)
    for name in ("cpu", "memory", "io"):
        (tmp_path / "proc/pressure" / name).unlink()
    with pytest.raises(Unavailable, match="proc/pressure/cpu: No such file"):
        values(one, 1)


def test_a_move_to_another_group_starts_afresh(tmp_path: Path) -> None:
    other = {"sys/fs/cgroup/other/cpu.pressure": psi(0), "sys/fs/cgroup/job/cpu.pressure": psi(0)}
    one = PressureLinux(tree(tmp_path, {**host_pressure(0, 0, 0), **group_v2(), **other}))
    values(one, 0)
    values(one, 1)
    tree(tmp_path, group_v2("/other"))
    with pytest.raises(Unavailable, match="moved to another cgroup"):
        values(one, 130)


def test_parses_the_microseconds_of_some() -> None:
    assert parse_pressure(psi(521_687_352).encode()) == 521_687_352


@pytest.mark.parametrize(
    "text",
    [b"", b"full total=1\n", b"some avg10=0.00\n", b"some avg10=0.00 total=x\n", b"some avg10=0.00 total=12"],
)
def test_an_invalid_pressure_file_is_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not a pressure file|invalid literal|is not a count"):
        parse_pressure(text)
