"""The command runner, with small real scripts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.command import CommandFailed, CommandMissing, Commands, CommandTimeout
from watching import eventually

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts are for a POSIX shell; Windows has none")

# Enough for killing a tool on a loaded test machine, but far below the 300 s that the scripts sleep.
FAR_BELOW_THE_SLEEP_SECONDS = 60
# Tests of anything but the budget have plenty of it, even on a busy machine.
PATIENT = 60.0


def script(directory: Path, text: str, name: str = "tool") -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_returns_the_output_of_the_tool(tmp_path: Path) -> None:
    assert (
        Commands(os.environ, budget_seconds=PATIENT)([script(tmp_path, "echo one; echo two >&2")]) == "one\n"
    )


def test_finds_the_tool_in_the_path_of_the_machine(tmp_path: Path) -> None:
    script(tmp_path, "echo found", "nvidia-smi")
    assert Commands({"PATH": str(tmp_path)}, budget_seconds=PATIENT)(["nvidia-smi"]) == "found\n"


def test_tools_run_in_the_c_locale_without_input(tmp_path: Path) -> None:
    tool = script(tmp_path, 'cat; echo "$LC_ALL"')
    environ = {**os.environ, "LC_ALL": "de_DE.UTF-8"}
    assert Commands(environ, budget_seconds=PATIENT)([tool]) == "C\n"


def test_empty_output_is_valid(tmp_path: Path) -> None:
    assert Commands(os.environ, budget_seconds=PATIENT)([script(tmp_path, "true")]) == ""


def test_undecodable_output_does_not_raise(tmp_path: Path) -> None:
    run = Commands(os.environ, budget_seconds=PATIENT)
    assert run([script(tmp_path, r"printf '\377\376\001GPU'")]) == "\ufffd\ufffd\x01GPU"


def test_a_missing_tool_raises(tmp_path: Path) -> None:
    with pytest.raises(CommandMissing, match=r"^nvidia-smi is not installed$"):
        Commands({"PATH": str(tmp_path)})(["nvidia-smi"])


def test_a_tool_without_permission_raises(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("no program")
    with pytest.raises(Unavailable, match=r"^tool could not be started: ") as caught:
        Commands(os.environ)([str(path)])
    assert str(tmp_path) not in str(caught.value)


def test_a_nonzero_exit_code_raises(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"^tool failed with exit code 9$") as caught:
        Commands(os.environ, budget_seconds=PATIENT)([script(tmp_path, "echo broken; exit 9")])
    assert (caught.value.exit_code, caught.value.output) == (9, "broken\n")


@pytest.mark.heavy
def test_a_hanging_tool_times_out(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"^tool did not finish within 0.1 s$"):
        Commands(os.environ, budget_seconds=0.1)([script(tmp_path, "exec sleep 300")])
    assert time.monotonic() - started < FAR_BELOW_THE_SLEEP_SECONDS


def test_a_child_that_keeps_the_pipe_open_is_killed_with_its_parent(tmp_path: Path) -> None:
    child = tmp_path / "child"
    tool = script(tmp_path, f"sleep 300 & echo $! > '{child}.new'; mv '{child}.new' '{child}'; wait")
    budget = 0.05
    while not child.exists():  # on a busy machine the tool may be killed before it has begun
        started = time.monotonic()
        with pytest.raises(CommandTimeout):
            Commands(os.environ, budget_seconds=budget)([tool])
        assert time.monotonic() - started < FAR_BELOW_THE_SLEEP_SECONDS
        budget *= 2
    assert_dies(int(child.read_text()))


@pytest.mark.heavy
def test_a_child_that_outlives_its_parent_does_not_block(tmp_path: Path) -> None:
    tool = script(tmp_path, "echo done; sleep 300 & exit 0")
    started = time.monotonic()
    with pytest.raises(CommandTimeout):
        Commands(os.environ, budget_seconds=0.1)([tool])
    assert time.monotonic() - started < FAR_BELOW_THE_SLEEP_SECONDS


def test_all_commands_share_one_budget(tmp_path: Path) -> None:
    ticks = iter([0.0, 2.0, 2.0, 3.5])
    run = Commands(os.environ, budget_seconds=3.0, clock=lambda: next(ticks))
    tool = script(tmp_path, f"echo run >> {tmp_path}/runs")
    run([tool])
    run([tool])
    with pytest.raises(CommandTimeout, match=r"^tool was not run: other commands took 3 s$"):
        run([tool])
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def assert_dies(pid: int) -> None:
    """Waits for the end of a process: the kernel needs a moment to end it, and its new parent to reap it."""

    def dead() -> bool:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "Z"
        except (ProcessLookupError, FileNotFoundError):
            return True

    eventually(dead)
