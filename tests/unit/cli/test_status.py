"""`status` shows the contents of this machine's journals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from orphaned import living, orphan

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.options import directory_fault
from mlflow_sysmetrics.cli.spooled_journals import read_journals
from mlflow_sysmetrics.daemon.journal.lines import understood

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change the owner of a file"
)


def status(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["status", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_of_a_dead_process_is_listed_with_its_points(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    _, _, server, _, line, *_ = status("--dir", str(tmp_path)).splitlines()
    run_id, points, age, unit, *owner = line.split()
    assert (server, run_id, points) == ("http://tracking:5000", "run-1", "3")
    assert (int(age) >= 5, unit) == (True, "min")  # more if the machine was slow
    assert owner == [f"{os.getpid()},", "dead"]


def test_runs_are_listed_below_their_servers(tmp_path: Path) -> None:
    for run_id, server in (("run-1", "http://a"), ("run-2", "http://b"), ("run-3", "http://a")):
        orphan(tmp_path, run_id, 3, server)
    blocks = status("--dir", str(tmp_path)).split("\n\n")[1:3]
    found = [{line.split()[0] for line in block.splitlines()} - {"RUN"} for block in blocks]
    assert {"http://a", "run-1", "run-3"} in found
    assert {"http://b", "run-2"} in found


def test_points_of_a_dead_process_have_a_remedy(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert "3 points of dead processes: send with mlflow-sysmetrics sync." in status("--dir", str(tmp_path))


def test_a_living_owner_is_shown_as_alive(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    try:
        text = status("--dir", str(tmp_path))
    finally:
        journal.close(delete=True)
    assert f"  {os.getpid()}, alive" in text
    assert "sync" not in text


def test_settled_points_do_not_wait(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 5)
    journal.acknowledge(0, 2)
    journal.close(delete=False)
    (found,) = read_journals(tmp_path)
    assert found.waiting == 3


def test_json_has_journals_and_runs(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    (journal,) = json.loads(status("--dir", str(tmp_path), "--json"))["journals"]
    (run,) = journal["runs"]
    assert (journal["path"], journal["owner_alive"], journal["pid"]) == (str(path), False, os.getpid())
    assert (run["run_id"], run["points_waiting"], run["detached"]) == ("run-1", 3, False)


def test_without_journals_it_says_so(tmp_path: Path) -> None:
    assert status("--dir", str(tmp_path)) == f"No run has a journal in {tmp_path}.\n"


def test_the_directory_of_the_settings_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSMETRICS_SPOOL_DIR", str(tmp_path / "mine"))
    assert status() == f"No run has a journal in {tmp_path / 'mine'}.\n"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", "--dir", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "nowhere" in done.output


def test_a_directory_of_the_settings_that_is_a_file_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MLFLOW_SYSMETRICS_SPOOL_DIR", str(tmp_path / "file"))
    done = CliRunner().invoke(main, ["status"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Error: {tmp_path / 'file'} is not a directory" in done.stderr


def test_a_directory_that_cannot_be_created_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MLFLOW_SYSMETRICS_SPOOL_DIR", str(tmp_path / "file" / "spool"))
    assert CliRunner().invoke(main, ["status"]).exit_code == 1


def test_an_unwritable_directory_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root can write everywhere
    assert directory_fault(tmp_path) == (
        f"this user cannot read and write {tmp_path}, so no journal can be kept there; see"
        " MLFLOW_SYSMETRICS_SPOOL_DIR"
    )


def test_a_run_that_was_never_ended_has_a_remedy(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert "1 run of dead processes may still be RUNNING: see mlflow-sysmetrics reap." in status(
        "--dir", str(tmp_path)
    )


def test_an_ended_run_needs_no_remedy(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    journal.end(0)
    journal.close(delete=False)
    assert "reap" not in status("--dir", str(tmp_path))


def test_skipped_journals_of_other_hosts_are_counted(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3, host="other")
    assert "Skipped 1 journal of other hosts; include with --any-host." in status("--dir", str(tmp_path))


def test_any_host_includes_journals_of_other_hosts(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=700, host="other")
    shown = status("--dir", str(tmp_path), "--any-host")
    assert f"  {os.getpid()} on other, dead" in shown
    assert "send with mlflow-sysmetrics sync --any-host." in shown


@needs_root
def test_a_journal_of_another_user_is_not_offered_for_sync(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    os.chown(path, 12345, -1)
    shown = status("--dir", str(tmp_path))
    assert f"  {os.getpid()}, of user 12345" in shown
    assert "sync" not in shown


@needs_root
def test_an_unreadable_journal_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mlflow_sysmetrics.cli.spooled_journals._read", forbidden)  # root can read everything
    path = orphan(tmp_path, "run-1", 3)
    os.chown(path, 12345, -1)
    done = CliRunner().invoke(main, ["status", "--dir", str(tmp_path)])
    assert done.exit_code == 0
    assert done.stderr == f"Cannot be read: {path} (process {os.getpid()}, of user 12345).\n"


def test_a_journal_is_read_once_for_all_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = living(tmp_path, "run-0", 1)
    for index in range(1, 20):
        journal.append(journal.register(f"run-{index}", "http://x", 0), 0, 1000, {"system/x": 1.0})
    journal.close(delete=False)
    read: list[bytes] = []
    monkeypatch.setattr(
        "mlflow_sysmetrics.cli.spooled_journals.understood",
        lambda text: read.append(text) or understood(text),
    )
    (found,) = read_journals(tmp_path)
    assert (len(found.runs), found.waiting) == (20, 20)
    assert len(read) == len(journal.path.read_bytes().splitlines())
