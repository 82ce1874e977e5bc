"""`cause_of_death` reads the kernel's counters and the last points."""

from __future__ import annotations

from pathlib import Path

import pytest
from orphaned import MEMORY

from mlflow_sysmetrics.cli.dead_runs import UNKNOWN_CAUSE, cause_of_death

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


def test_a_kill_since_the_run_began_is_the_cause(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause_of_death(str(tmp_path), 2, {}) == "out of memory: memory.events counted 1 kill"


def test_cgroup_v1_kills_count(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text(CONTROL.format(2))
    assert cause_of_death(str(tmp_path), 0, {}) == "out of memory: memory.oom_control counted 2 kills"


def test_kills_before_the_run_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause_of_death(str(tmp_path), 3, {}) == UNKNOWN_CAUSE


def test_a_missing_cgroup_leaves_the_cause_unknown(tmp_path: Path) -> None:
    assert cause_of_death(str(tmp_path / "gone"), 0, {}) == UNKNOWN_CAUSE


def test_without_an_initial_count_kills_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS.format(3))
    assert cause_of_death(str(tmp_path), None, {}) == UNKNOWN_CAUSE


@pytest.mark.parametrize("key", [MEMORY, "system/node-1/system_memory_usage_percentage"])
def test_full_memory_in_the_last_point_makes_out_of_memory_likely(key: str) -> None:
    assert cause_of_death(None, None, {key: 99.2}) == "out of memory likely: memory at 99 % in the last point"


def test_memory_below_95_percent_leaves_the_cause_unknown() -> None:
    assert cause_of_death(None, None, {MEMORY: 94.9}) == UNKNOWN_CAUSE


def test_full_host_memory_does_not_count() -> None:
    assert cause_of_death(None, None, {"system/host_memory_usage_percentage": 99.0}) == UNKNOWN_CAUSE
