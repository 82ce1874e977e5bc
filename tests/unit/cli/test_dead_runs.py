"""`DeadRunSearch` decides which runs are dead."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from orphaned import CPU, MEMORY, SERVER, FakeServer, FakeSink, backdate, living, now_ms, orphan, running

from mlflow_sysmetrics.cli.dead_runs import DeadRun, DeadRunSearch
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery
from mlflow_sysmetrics.cli.spooled_journals import read_journals
from mlflow_sysmetrics.daemon.journal.ownership import lock_path

HOUR_MS = 3_600_000
HERE = platform.node()


def search(server: FakeServer, *, only_journals: bool = True, **options: Any) -> DeadRunSearch:
    uri = None if only_journals else SERVER
    return DeadRunSearch(uri, 600.0, _servers={SERVER: server}, **options)  # type: ignore[dict-item]


def dead_runs(searching: DeadRunSearch, directory: Path) -> list[DeadRun]:
    return searching.dead_runs(list(read_journals(directory)))


def long_silent(run_id: str = "run-1", **changes: Any) -> FakeServer:
    """Returns a server with a run whose last point is an hour old."""
    about = {"last_sign": now_ms() - HOUR_MS, "hostname": HERE, "system": {CPU: 1.0}, **changes}
    return FakeServer({run_id: running(run_id, **about)})


def test_a_running_run_in_an_orphaned_journal_is_dead(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    (dead,) = dead_runs(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert (dead.run.run_id, dead.journals, dead.waiting) == ("run-1", (path,), 3)


def test_a_run_that_ended_is_not_dead(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert not dead_runs(search(FakeServer({"run-1": running("run-1", running=False)})), tmp_path)


def test_an_unknown_run_is_not_dead(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert not dead_runs(search(FakeServer()), tmp_path)


def test_a_detached_run_is_not_dead(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    journal.end(0)
    journal.close(delete=False)
    assert not dead_runs(search(FakeServer({"run-1": running("run-1")})), tmp_path)


def test_a_run_resumed_by_a_living_process_here_is_left_alone(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    journal = living(tmp_path, "run-1", 3)
    searching = search(FakeServer({"run-1": running("run-1")}))
    try:
        assert not dead_runs(searching, tmp_path)
    finally:
        journal.close(delete=True)
    assert "alive, feeds it" in searching.alone["run-1"]


def test_a_run_fed_by_another_machine_is_left_alone(tmp_path: Path) -> None:
    """Its newest point is newer than anything the owner of the journal can have written."""
    orphan(tmp_path, "run-1", 3)
    searching = search(FakeServer({"run-1": running("run-1", last_sign=now_ms() - 100_000)}))
    assert not dead_runs(searching, tmp_path)
    assert searching.alone == {"run-1": "another process feeds it"}


def test_metrics_logged_since_the_last_point_are_those_of_the_dead_process(tmp_path: Path) -> None:
    """An old run has a point a minute, and the program goes on logging in between."""
    orphan(tmp_path, "run-1", 3, silent_s=300)
    (dead,) = dead_runs(
        search(FakeServer({"run-1": running("run-1", last_sign=now_ms() - 220_000)})), tmp_path
    )
    assert dead.run.run_id == "run-1"


def test_a_run_resumed_elsewhere_after_a_sync_is_left_alone(tmp_path: Path) -> None:
    """Delivered points have left the journal, and their delivery does not count as a sign of life."""
    orphan(tmp_path, "run-1", 3, silent_s=300)
    server = FakeServer({"run-1": running("run-1", last_sign=now_ms() - 100_000)})
    OrphanDelivery(None, open_sink=lambda _: FakeSink(runs=["run-1"])).deliver(next(tmp_path.glob("*.jsonl")))
    searching = search(server)
    assert not dead_runs(searching, tmp_path)
    assert searching.alone == {"run-1": "another process feeds it"}


@pytest.mark.parametrize("silent", [40, 90])  # an old run has one point a minute
def test_a_run_with_a_sign_of_life_in_the_last_minutes_is_left_alone(tmp_path: Path, silent: int) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=silent)
    searching = search(FakeServer({"run-1": running("run-1")}))
    assert not dead_runs(searching, tmp_path)
    assert "try again in two minutes" in searching.alone["run-1"]


def test_a_shorter_older_than_replaces_the_two_minutes(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=40)
    server = FakeServer({"run-1": running("run-1")})
    assert dead_runs(DeadRunSearch(None, 10.0, _servers={SERVER: server}), tmp_path)  # type: ignore[dict-item]


def test_a_run_with_a_deleted_lock_is_left_alone_while_its_process_lives(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3, silent_s=300)
    lock_path(journal.path).unlink()
    backdate(journal.path, 300)
    try:
        assert not dead_runs(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    finally:
        journal.close(delete=True)


def test_a_run_that_died_twice_is_found_once(tmp_path: Path) -> None:
    older = orphan(tmp_path, "run-1", 2, silent_s=600)
    newer = orphan(tmp_path, "run-1", 3, silent_s=300)
    (dead,) = dead_runs(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert (dead.journals, dead.waiting) == ((newer, older), 5)


def test_the_cgroup_of_another_host_is_not_read_here(tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()
    (cgroup / "memory.events").write_text("oom_kill 4\n")
    orphan(tmp_path, "run-1", 3, silent_s=700, host="other", cgroup=str(cgroup), oom_kills=3)
    searching = search(FakeServer({"run-1": running("run-1")}))
    (dead,) = searching.dead_runs(list(read_journals(tmp_path, any_host=True)))
    assert dead.cause == "the process died without reporting a reason"


def test_the_last_point_may_still_be_in_the_journal(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3, silent_s=300)
    last = now_ms() - 300_000
    journal.append(0, 3, last, {MEMORY: 99.4})
    journal.close(delete=False)
    backdate(journal.path, 300)
    (dead,) = dead_runs(search(FakeServer({"run-1": running("run-1", last_sign=1000)})), tmp_path)
    assert dead.last_sign == last
    assert dead.cause == "out of memory likely: memory at 99 % in the last point"


def test_kills_are_read_from_the_journalled_cgroup(tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()
    (cgroup / "memory.events").write_text("oom_kill 4\n")
    orphan(tmp_path, "run-1", 3, cgroup=str(cgroup), oom_kills=3)
    (dead,) = dead_runs(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert dead.cause == "out of memory: memory.events counted 1 kill"


def test_a_server_that_is_down_is_reported_once(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    orphan(tmp_path, "run-2", 3)
    searching = search(FakeServer(down="Connection refused"))
    assert not dead_runs(searching, tmp_path)
    (fault,) = searching.faults
    assert fault.startswith(f"{SERVER}: Connection refused. Check that the server is up")


def test_a_long_silent_run_of_this_machine_is_dead(tmp_path: Path) -> None:
    (dead,) = dead_runs(search(long_silent(), only_journals=False), tmp_path)
    assert (dead.run.run_id, dead.journals, dead.cause) == (
        "run-1",
        (),
        "the process died without reporting a reason",
    )


def test_a_run_with_a_recent_point_is_not_dead(tmp_path: Path) -> None:
    server = long_silent(last_sign=now_ms() - 60_000)
    assert not dead_runs(search(server, only_journals=False), tmp_path)


def test_a_run_without_a_system_point_is_not_dead(tmp_path: Path) -> None:
    """It may have been killed before its first point reached the server."""
    assert not dead_runs(search(long_silent(system={}), only_journals=False), tmp_path)


def test_a_run_of_another_machine_is_not_dead(tmp_path: Path) -> None:
    assert not dead_runs(search(long_silent(hostname="other"), only_journals=False), tmp_path)


def test_any_host_includes_runs_of_other_machines(tmp_path: Path) -> None:
    searching = search(long_silent(hostname="other"), only_journals=False, any_host=True)
    assert [dead.run.run_id for dead in dead_runs(searching, tmp_path)] == ["run-1"]


def test_a_silent_run_fed_by_a_living_process_here_is_left_alone(tmp_path: Path) -> None:
    """Its server was down for a long time, so its points are still waiting."""
    journal = living(tmp_path, "run-1", 3)
    searching = search(long_silent(), only_journals=False)
    try:
        assert not dead_runs(searching, tmp_path)
    finally:
        journal.close(delete=True)
    assert "run-1" in searching.alone


def test_a_run_in_a_journal_is_found_once(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert len(dead_runs(search(long_silent(), only_journals=False), tmp_path)) == 1


def test_runs_of_other_experiments_are_excluded(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    server = FakeServer({"run-1": running("run-1", experiment_id="7")})
    assert not dead_runs(search(server, experiments=("Default",)), tmp_path)
