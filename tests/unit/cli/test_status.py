"""`status` shows what this machine's journals hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from orphaned import living, orphan

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.spooled import look


def status(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["status", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_of_a_process_that_is_gone_stands_with_its_points(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    line = status("--dir", str(tmp_path)).splitlines()[1].split()
    run_id, server, points, age, unit, *owner = line
    assert (run_id, server, points) == ("run-1", "http://tracking:5000", "3")
    assert (int(age) >= 2, unit) == (True, "s")  # a second more for each that the machine took until now
    assert owner == ["0", "process", f"{os.getpid()},", "gone"]


def test_points_of_a_process_that_is_gone_come_with_the_remedy(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert "3 points of processes that are gone: send with mlflow-sysmetrics sync." in status(
        "--dir", str(tmp_path)
    )


def test_a_living_owner_is_called_alive(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    try:
        text = status("--dir", str(tmp_path))
    finally:
        journal.close(delete=True)
    assert f"process {os.getpid()}, alive" in text
    assert "sync" not in text


def test_what_is_settled_does_not_wait(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 5)
    journal.acknowledge(0, 2)
    journal.close(delete=False)
    (found,) = look(tmp_path)
    assert found.waiting == 3


def test_json_holds_what_a_program_wants_to_know(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    (journal,) = json.loads(status("--dir", str(tmp_path), "--json"))["journals"]
    (run,) = journal["runs"]
    assert (journal["path"], journal["owner_alive"], journal["pid"]) == (str(path), False, os.getpid())
    assert (run["run_id"], run["points_waiting"], run["detached"]) == ("run-1", 3, False)


def test_no_journal_is_said(tmp_path: Path) -> None:
    assert status("--dir", str(tmp_path)) == f"No run has a journal in {tmp_path}.\n"


def test_the_directory_of_the_settings_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSMETRICS_SPOOL_DIR", str(tmp_path / "mine"))
    assert status() == f"No run has a journal in {tmp_path / 'mine'}.\n"


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", "--dir", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "nowhere" in done.output
