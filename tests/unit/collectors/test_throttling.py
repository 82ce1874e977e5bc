"""Throttling: the CPU time lost to a quota."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_machines import group_v2, tree, values

from mlflow_sysmetrics.collectors.throttling_linux import Periods, ThrottlingLinux, parse_cpu_stat
from mlflow_sysmetrics.errors import Unavailable

KEY = "cpu_throttled_percentage"
QUOTA = "50000 100000\n"


def cpu_stat(elapsed: int, throttled: int) -> str:
    return f"usage_usec 1\nnr_periods {elapsed}\nnr_throttled {throttled}\nthrottled_usec 5\n"


def files(group: str, quota: str, elapsed: int, throttled: int) -> dict[str, str]:
    path = f"sys/fs/cgroup{group}"
    return {f"{path}/cpu.max": quota, f"{path}/cpu.stat": cpu_stat(elapsed, throttled)}


def test_throttling_covers_the_periods_since_the_previous_reading(tmp_path: Path) -> None:
    one = ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", QUOTA, 100, 40)}))
    assert values(one, 0) == {}
    tree(tmp_path, files("/job", QUOTA, 110, 43))
    assert values(one, 1) == {KEY: 30}


def test_a_job_without_work_is_not_throttled(tmp_path: Path) -> None:
    one = ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", QUOTA, 100, 40)}))
    values(one, 0)
    assert values(one, 1) == {KEY: 0}


def test_the_quota_of_an_ancestor_throttles_too(tmp_path: Path) -> None:
    host = tree(
        tmp_path,
        {**group_v2("/pod/job"), **files("/pod", QUOTA, 10, 0), **files("/pod/job", "max 100000\n", 0, 0)},
    )
    one = ThrottlingLinux(host)
    values(one, 0)
    tree(tmp_path, files("/pod", QUOTA, 20, 5))
    assert values(one, 1) == {KEY: 50}


def test_the_quota_that_throttles_most_counts(tmp_path: Path) -> None:
    before = {**files("/pod", QUOTA, 0, 0), **files("/pod/job", QUOTA, 0, 0)}
    one = ThrottlingLinux(tree(tmp_path, {**group_v2("/pod/job"), **before}))
    values(one, 0)
    tree(tmp_path, {**files("/pod", QUOTA, 10, 2), **files("/pod/job", QUOTA, 10, 7)})
    assert values(one, 1) == {KEY: 70}


def test_without_a_quota_it_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no CPU quota"):
        ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", "max 100000\n", 0, 0)}))


def test_removing_the_quota_makes_it_unavailable(tmp_path: Path) -> None:
    one = ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", QUOTA, 0, 0)}))
    values(one, 0)
    values(one, 1)
    tree(tmp_path, files("/job", "max 100000\n", 10, 0))
    with pytest.raises(Unavailable, match="no CPU quota"):
        values(one, 2)


def test_counters_that_decrease_are_unknown(tmp_path: Path) -> None:
    one = ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", QUOTA, 100, 40)}))
    values(one, 0)
    tree(tmp_path, files("/job", QUOTA, 10, 4))
    assert values(one, 1) == {}
    tree(tmp_path, files("/job", QUOTA, 20, 5))
    assert values(one, 2) == {KEY: 10}


@pytest.mark.parametrize("text", [None, "garbage\n"])
def test_a_removed_group_makes_the_collector_unavailable_until_rediscovery(
    tmp_path: Path, text: str | None
) -> None:
    one = ThrottlingLinux(tree(tmp_path, {**group_v2(), **files("/job", QUOTA, 100, 40)}))
    values(one, 0)
    file = tmp_path / "sys/fs/cgroup/job/cpu.stat"
    file.unlink()
    if text:
        file.write_text(text)
    with pytest.raises(Unavailable, match="periods of the CPU quota"):
        values(one, 1)


def test_parses_the_periods_of_a_cpu_stat() -> None:
    assert parse_cpu_stat(cpu_stat(7, 3).encode()) == Periods(elapsed=7, throttled=3)


@pytest.mark.parametrize(
    "text", [b"", b"nr_periods 1\n", b"nr_throttled 1\n", b"nr_periods x\nnr_throttled 1\n"]
)
def test_a_cpu_stat_without_periods_is_rejected(text: bytes) -> None:
    with pytest.raises(ValueError, match="nr_periods"):
        parse_cpu_stat(text)
