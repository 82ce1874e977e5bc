"""`sync` delivers the points that dead processes left behind."""

from __future__ import annotations

import json
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from orphaned import CPU, SERVER, FakeSink, living, orphan

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> FakeSink:
    """The sink of every server."""
    found = FakeSink(runs=["run-1", "run-2"])
    delivery = partial(OrphanDelivery, open_sink=lambda _: found)
    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.sync"), "OrphanDelivery", delivery)
    return found


def sync(directory: Path, *arguments: str) -> Result:
    # Without a tracking URI the command would ask MLflow for one.
    common = ["--dir", str(directory), "--tracking-uri", SERVER, "--wait", "0.01s"]
    return CliRunner().invoke(main, ["sync", *common, *arguments])


def test_all_waiting_points_are_sent(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3)
    orphan(tmp_path, "run-2", 2)
    done = sync(tmp_path)
    assert sorted((run, point.key, point.value) for run, point in sink.taken) == [
        ("run-1", CPU, 0.0),
        ("run-1", CPU, 1.0),
        ("run-1", CPU, 2.0),
        ("run-2", CPU, 0.0),
        ("run-2", CPU, 1.0),
    ]
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "Sent 5 points from 2 journals.")


def test_the_journal_of_an_ended_run_is_deleted(tmp_path: Path, sink: FakeSink) -> None:
    sink.ended = True
    path = orphan(tmp_path, "run-1", 3)
    sync(tmp_path)
    assert not path.exists()


def test_the_journal_of_a_running_run_is_kept_for_reap(tmp_path: Path, sink: FakeSink) -> None:
    path = orphan(tmp_path, "run-1", 3)
    assert (
        "1 run of dead processes may still be RUNNING; see mlflow-sysmetrics reap." in sync(tmp_path).stdout
    )
    assert path.exists()
    assert len(sink.taken) == 3


def test_a_second_sync_sends_nothing(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3)
    sync(tmp_path)
    assert sync(tmp_path).stdout.startswith("Nothing to send")
    assert len(sink.taken) == 3


def test_a_server_that_is_down_is_named_with_the_reason(tmp_path: Path, sink: FakeSink) -> None:
    sink.down = "Connection refused"
    path = orphan(tmp_path, "run-1", 3)
    done = sync(tmp_path)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"Error: {SERVER}: Connection refused; 3 points still in {path}",
        "These points stay in their journals. Test the server, then run sync again:",
        f"  mlflow-sysmetrics check --tracking-uri {SERVER}",
    ]


def test_a_reason_is_printed_once_for_all_journals(tmp_path: Path, sink: FakeSink) -> None:
    sink.down = "Connection refused"
    orphan(tmp_path, "run-1", 3)
    orphan(tmp_path, "run-2", 2)
    done = sync(tmp_path)
    assert done.stderr.startswith(f"Error: {SERVER}: Connection refused; 5 points still in 2 journals\n")
    assert done.stdout == "Nothing was sent.\n"


def test_delivery_preserves_the_modification_time(tmp_path: Path, sink: FakeSink) -> None:
    path = orphan(tmp_path, "run-1", 3)
    before = path.stat().st_mtime
    sync(tmp_path)
    assert len(sink.taken) == 3
    assert abs(path.stat().st_mtime - before) < 1  # filesystems round


def test_an_unused_tracking_uri_is_named(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3)
    done = sync(tmp_path, "--tracking-uri", "http://me:secret@other:5000")
    assert "Note: no point waits for http://other:5000, so --tracking-uri was not used" in done.stderr
    assert f"to the servers that their journals name: {SERVER}." in done.stderr
    assert len(sink.taken) == 3


def test_skipped_journals_of_other_hosts_are_counted(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=700, host="other")
    assert sync(tmp_path).stderr == "Skipped 1 journal of other hosts; include with --any-host.\n"
    assert not sink.taken


def test_any_host_sends_journals_of_other_hosts(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=700, host="other")
    assert sync(tmp_path, "--any-host").stdout.startswith("Sent 3 points from 1 journal.")
    assert len(sink.taken) == 3


def test_any_host_leaves_recently_written_journals_alone(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=500, host="other")
    assert "on other, may be alive; 3 points waiting" in sync(tmp_path, "--any-host").stderr
    assert not sink.taken


def test_wait_may_be_zero(tmp_path: Path, sink: FakeSink) -> None:
    sink.down = "Connection refused"
    orphan(tmp_path, "run-1", 3)
    assert sync(tmp_path, "--wait", "0").exit_code == 1


def test_a_deleted_run_is_named(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "deleted", 3)
    sink.deleted = ["deleted"]
    done = sync(tmp_path)
    assert done.exit_code == 1
    assert done.stderr == (f"Error: {SERVER}: gave up the points of run deleted: the run was deleted\n")


@pytest.mark.usefixtures("sink")
def test_an_unknown_run_is_named_and_kept_for_a_month(tmp_path: Path) -> None:
    path = orphan(tmp_path, "elsewhere", 3)
    done = sync(tmp_path)
    date = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime + 30 * 86400))
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: {SERVER} does not accept points of run elsewhere (there is no such run); kept until {date}, "
        f"in case the run is on another server; 3 points still in {path}\n"
    )


@pytest.mark.usefixtures("sink")
def test_an_unknown_run_does_not_use_up_the_wait(tmp_path: Path) -> None:
    delivery = OrphanDelivery(None, open_sink=lambda _: FakeSink(), wait_seconds=0.01)
    delivery.deliver(orphan(tmp_path, "elsewhere", 3))
    assert delivery.wait_seconds == 0.01


def test_a_living_process_is_left_alone_and_named(tmp_path: Path, sink: FakeSink) -> None:
    journal = living(tmp_path, "run-1", 3)
    try:
        done = sync(tmp_path)
    finally:
        journal.close(delete=True)
    assert done.exit_code == 0
    assert f"Left alone: {journal.path} (process" in done.stderr
    assert not sink.taken


def test_a_dry_run_lists_points_and_sends_none(tmp_path: Path, sink: FakeSink) -> None:
    path = orphan(tmp_path, "run-1", 3)
    before = path.read_bytes()
    done = sync(tmp_path, "--dry-run")
    assert done.stdout.splitlines()[2].split()[:2] == ["run-1", "3"]
    assert "Would send 3 points; nothing was sent." in done.stdout
    assert path.read_bytes() == before
    assert not sink.taken


def test_json_counts_what_was_sent(tmp_path: Path, sink: FakeSink) -> None:
    path = orphan(tmp_path, "run-1", 3)
    found = json.loads(sync(tmp_path, "--json").stdout)
    assert (found["points_sent"], found["points_waiting"], found["points_dropped"]) == (3, 0, 0)
    assert found["journals"][0]["journal"] == str(path)
    assert len(sink.taken) == 3


def test_json_of_a_dry_run_has_the_times_of_the_points(tmp_path: Path, sink: FakeSink) -> None:
    orphan(tmp_path, "run-1", 3)
    (run,) = json.loads(sync(tmp_path, "--dry-run", "--json").stdout)["runs"]
    assert run["newest_point"] - run["oldest_point"] == 2000
    assert not sink.taken


@pytest.mark.usefixtures("sink")
def test_nothing_to_send_is_not_a_fault(tmp_path: Path) -> None:
    done = sync(tmp_path)
    assert (done.exit_code, done.stdout) == (
        0,
        f"Nothing to send: no dead process left points in {tmp_path}.\n",
    )


def test_points_for_an_unmounted_store_are_kept(tmp_path: Path) -> None:
    """MLflow would create an empty database there, which does not have the run."""
    path = orphan(tmp_path, "run-1", 3, f"sqlite:///{tmp_path / 'mount' / 'runs.db'}")
    delivery = OrphanDelivery(None, wait_seconds=60.0)
    outcome = delivery.deliver(path)
    assert outcome is not None
    assert delivery.wait_seconds == 60.0  # there was no wait, so the next server is still waited for
    assert (outcome.delivered, outcome.dropped, outcome.waiting) == (0, 0, 3)
    assert "runs.db does not exist" in outcome.faults[0]


def test_after_one_wait_timed_out_the_other_servers_are_tried_once(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    delivery = OrphanDelivery(
        None, open_sink=lambda _: FakeSink(down="Connection refused"), wait_seconds=0.01
    )
    delivery.deliver(path)
    assert delivery.wait_seconds == 0.0
