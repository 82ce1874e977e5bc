"""Why a process ended, as far as the kernel or its last points tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from orphaned import MEMORY

from mlflow_sysmetrics.cli.deaths import UNKNOWN, cause

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


def test_a_kill_since_the_run_began_is_the_cause(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause(str(tmp_path), 2, {}) == "out of memory: memory.events counted 1 kill"


def test_kills_of_cgroup_v1_count_too(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text(CONTROL.format(2))
    assert cause(str(tmp_path), 0, {}) == "out of memory: memory.oom_control counted 2 kills"


def test_kills_from_before_the_run_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause(str(tmp_path), 3, {}) == UNKNOWN


def test_a_group_that_is_gone_leaves_the_cause_open(tmp_path: Path) -> None:
    assert cause(str(tmp_path / "gone"), 0, {}) == UNKNOWN


def test_without_a_count_from_the_beginning_the_kernel_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause(str(tmp_path), None, {}) == UNKNOWN


@pytest.mark.parametrize("key", [MEMORY, "system/node-1/system_memory_usage_percentage"])
def test_full_memory_in_the_last_point_makes_it_likely(key: str) -> None:
    assert cause(None, None, {key: 99.2}) == "out of memory likely: memory at 99 % in the last point"


def test_ordinary_memory_says_nothing() -> None:
    assert cause(None, None, {MEMORY: 94.9}) == UNKNOWN


def test_the_host_s_full_memory_is_not_the_job_s() -> None:
    assert cause(None, None, {"system/host_memory_usage_percentage": 99.0}) == UNKNOWN
