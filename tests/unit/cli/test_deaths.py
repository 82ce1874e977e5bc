"""Which runs are taken to be dead."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from orphaned import CPU, MEMORY, SERVER, FakeServer, FakeSink, backdate, living, now_ms, orphan, running

from mlflow_sysmetrics.cli.deaths import Death, Search
from mlflow_sysmetrics.cli.delivery import Delivery
from mlflow_sysmetrics.cli.spooled import look
from mlflow_sysmetrics.daemon.journal.ownership import lock_path

HOUR_MS = 3_600_000
HERE = platform.node()


def search(server: FakeServer, *, only_journals: bool = True, **options: Any) -> Search:
    uri = None if only_journals else SERVER
    return Search(uri, 600.0, _servers={SERVER: server}, **options)  # type: ignore[dict-item]


def deaths(found: Search, directory: Path) -> list[Death]:
    return found.deaths(list(look(directory)))


def long_silent(run_id: str = "run-1", **changes: Any) -> FakeServer:
    """Returns a server with a run that had its last point an hour ago."""
    about = {"last_sign": now_ms() - HOUR_MS, "hostname": HERE, "system": {CPU: 1.0}, **changes}
    return FakeServer({run_id: running(run_id, **about)})


def test_a_running_run_in_an_orphaned_journal_is_dead(tmp_path: Path) -> None:
    path = orphan(tmp_path, "run-1", 3)
    (death,) = deaths(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert (death.run.run_id, death.journals, death.waiting) == ("run-1", (path,), 3)


def test_one_that_ended_is_not(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert not deaths(search(FakeServer({"run-1": running("run-1", running=False)})), tmp_path)


def test_one_that_is_gone_is_not(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert not deaths(search(FakeServer()), tmp_path)


def test_one_that_was_detached_is_not(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3)
    journal.end(0)
    journal.close(delete=False)
    assert not deaths(search(FakeServer({"run-1": running("run-1")})), tmp_path)


def test_one_that_a_living_process_here_has_resumed_is_left_alone(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    journal = living(tmp_path, "run-1", 3)
    looking = search(FakeServer({"run-1": running("run-1")}))
    try:
        assert not deaths(looking, tmp_path)
    finally:
        journal.close(delete=True)
    assert "alive, feeds it" in looking.alone["run-1"]


def test_one_that_another_machine_feeds_is_left_alone(tmp_path: Path) -> None:
    """Its newest point is newer than anything that the journal's process can have written."""
    orphan(tmp_path, "run-1", 3)
    looking = search(FakeServer({"run-1": running("run-1", last_sign=now_ms() - 100_000)}))
    assert not deaths(looking, tmp_path)
    assert looking.alone == {"run-1": "another process feeds it"}


def test_one_that_was_resumed_elsewhere_after_a_sync_is_left_alone(tmp_path: Path) -> None:
    """What was delivered stands in the journal no more, and its delivery does not count as a sign of life."""
    orphan(tmp_path, "run-1", 3, silent_s=300)
    server = FakeServer({"run-1": running("run-1", last_sign=now_ms() - 100_000)})
    Delivery(None, open_sink=lambda _: FakeSink(runs=["run-1"])).deliver(next(tmp_path.glob("*.jsonl")))
    looking = search(server)
    assert not deaths(looking, tmp_path)
    assert looking.alone == {"run-1": "another process feeds it"}


def test_one_with_a_sign_of_life_within_the_last_minute_is_left_alone(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=40)
    looking = search(FakeServer({"run-1": running("run-1")}))
    assert not deaths(looking, tmp_path)
    assert "try again in a minute" in looking.alone["run-1"]


def test_a_shorter_time_may_be_asked_for(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3, silent_s=40)
    server = FakeServer({"run-1": running("run-1")})
    assert deaths(Search(None, 10.0, _servers={SERVER: server}), tmp_path)  # type: ignore[dict-item]


def test_one_whose_lock_was_deleted_is_left_alone_while_its_process_lives(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3, silent_s=300)
    lock_path(journal.path).unlink()
    backdate(journal.path, 300)
    try:
        assert not deaths(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    finally:
        journal.close(delete=True)


def test_one_that_died_twice_is_dead_once(tmp_path: Path) -> None:
    older = orphan(tmp_path, "run-1", 2, silent_s=600)
    newer = orphan(tmp_path, "run-1", 3, silent_s=300)
    (death,) = deaths(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert (death.journals, death.waiting) == ((newer, older), 5)


def test_the_group_of_another_host_is_not_looked_for_here(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.events").write_text("oom_kill 4\n")
    orphan(tmp_path, "run-1", 3, silent_s=700, host="other", cgroup=str(group), oom_kills=3)
    looking = search(FakeServer({"run-1": running("run-1")}))
    (death,) = looking.deaths(list(look(tmp_path, any_host=True)))
    assert death.why == "the process ended without a word"


def test_the_last_point_may_still_lie_in_the_journal(tmp_path: Path) -> None:
    journal = living(tmp_path, "run-1", 3, silent_s=300)
    last = now_ms() - 300_000
    journal.append(0, 3, last, {MEMORY: 99.4})
    journal.close(delete=False)
    backdate(journal.path, 300)
    (death,) = deaths(search(FakeServer({"run-1": running("run-1", last_sign=1000)})), tmp_path)
    assert death.last_sign == last
    assert death.why == "out of memory likely: memory at 99 % in the last point"


def test_kills_are_read_from_the_journalled_group(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.events").write_text("oom_kill 4\n")
    orphan(tmp_path, "run-1", 3, cgroup=str(group), oom_kills=3)
    (death,) = deaths(search(FakeServer({"run-1": running("run-1")})), tmp_path)
    assert death.why == "out of memory: memory.events counted 1 kill"


def test_a_server_that_is_away_is_named_once(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    orphan(tmp_path, "run-2", 3)
    looking = search(FakeServer(away="Connection refused"))
    assert not deaths(looking, tmp_path)
    assert looking.faults == [f"{SERVER}: Connection refused"]


def test_a_run_of_this_machine_that_was_silent_for_long_is_dead(tmp_path: Path) -> None:
    (death,) = deaths(search(long_silent(), only_journals=False), tmp_path)
    assert (death.run.run_id, death.journals, death.why) == ("run-1", (), "the process ended without a word")


def test_one_that_had_a_point_lately_is_not(tmp_path: Path) -> None:
    server = long_silent(last_sign=now_ms() - 60_000)
    assert not deaths(search(server, only_journals=False), tmp_path)


def test_one_that_never_had_a_system_point_is_not(tmp_path: Path) -> None:
    """`log_system_metrics=False` makes such runs, and their tag says that metrics are on."""
    assert not deaths(search(long_silent(system={}), only_journals=False), tmp_path)


def test_one_of_another_machine_is_its_business(tmp_path: Path) -> None:
    assert not deaths(search(long_silent(hostname="other"), only_journals=False), tmp_path)


def test_any_host_takes_the_runs_of_other_machines_too(tmp_path: Path) -> None:
    looking = search(long_silent(hostname="other"), only_journals=False, any_host=True)
    assert [death.run.run_id for death in deaths(looking, tmp_path)] == ["run-1"]


def test_a_silent_run_that_a_living_process_here_feeds_is_left_alone(tmp_path: Path) -> None:
    """Its server was away for long, and what it is owed waits."""
    journal = living(tmp_path, "run-1", 3)
    looking = search(long_silent(), only_journals=False)
    try:
        assert not deaths(looking, tmp_path)
    finally:
        journal.close(delete=True)
    assert "run-1" in looking.alone


def test_a_run_in_a_journal_is_found_once(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    assert len(deaths(search(long_silent(), only_journals=False), tmp_path)) == 1


def test_other_experiments_than_those_named_are_left_out(tmp_path: Path) -> None:
    orphan(tmp_path, "run-1", 3)
    server = FakeServer({"run-1": running("run-1", experiment_id="7")})
    assert not deaths(search(server, experiments=("Default",)), tmp_path)
