"""The command line after a training that was killed, on a real store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import forks
import pytest
from programs import QUIET, Program, Store

from gone import of_a_process_that_is_gone

# Nothing is sent before the kill: the send interval is an hour, so all sampled points are in the journal.
ENVIRON = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    "MLFLOW_SYSMETRICS_SEND_INTERVAL": "3600",
}
AGED = ("--older-than", "0.1s")  # the default requires two minutes of silence
KILLED = """
    import signal
    from pathlib import Path

    run = mlflow.start_run()
    print(run.info.run_id, flush=True)
    spool = Path(os.environ["MLFLOW_SYSMETRICS_SPOOL_DIR"])
    while sum(path.read_bytes().count(b'"m"') for path in spool.glob("*.jsonl")) < 3:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The directory of the journals."""
    return tmp_path / "spool"


@pytest.fixture
def killed(program: Program, store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose process was killed before it sent anything."""
    if "?" in store.uri:  # a query may be a secret, so it is not journalled
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    finished = program(store.uri, KILLED, check=False, MLFLOW_SYSMETRICS_SPOOL_DIR=str(spool), **ENVIRON)
    assert finished.returncode == -9, finished.stderr
    return finished.words[0]


def command(name: str, *arguments: str, status: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a separate process, like a shell."""
    whole = {**os.environ, **QUIET, **environ}
    done = forks.run(["-m", "mlflow_sysmetrics.cli", name, *arguments], env=whole, timeout=400)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def unwrapped(text: str) -> str:
    """Returns a text whose lines were wrapped at 80 columns in one line."""
    return " ".join(text.split())


def journalled(spool: Path) -> set[tuple[str, int, float]]:
    """Returns key, time and value of every point in the journals."""
    lines = [json.loads(line) for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]
    return {(key, line["t"], value) for line in lines if "m" in line for key, value in line["m"].items()}


def stored(store: Store, run_id: str) -> list[tuple[str, int, float]]:
    """Returns key, time and value of every point on the server, including duplicates."""
    return [(p.key, p.timestamp, p.value) for key in store.keys(run_id) for p in store.points(run_id, key)]


def test_a_killed_run_is_synced_and_reaped(killed: str, store: Store, spool: Path) -> None:
    sampled = journalled(spool)
    place = ("--dir", str(spool))
    (journal,) = json.loads(command("status", *place, "--json").stdout)["journals"]
    assert (journal["owner_alive"], journal["runs"][0]["points_waiting"]) == (False, len(sampled))

    assert command("sync", *place).stdout.startswith(f"Sent {len(sampled):,} points from 1 journal.")
    points = stored(store, killed)
    assert len(points) == len(sampled)
    assert set(points) == sampled
    assert store.client.get_run(killed).info.status == "RUNNING"
    assert list(spool.glob("*.jsonl"))

    assert killed in command("reap", *place, *AGED).stdout
    assert store.client.get_run(killed).info.status == "RUNNING"
    assert "1 run set to KILLED." in command("reap", *place, *AGED, "--apply").stdout
    run = store.client.get_run(killed)
    assert (run.info.status, run.info.end_time) == ("KILLED", max(time for _, time, _ in sampled))
    assert "sysmetrics.reaped" in run.data.tags
    assert not list(spool.iterdir())


LASTING = """
    import signal
    from mlflow_sysmetrics.summary import live_run, rules

    live_run.REFRESH_SECONDS, live_run.GRID_SECONDS = 0.6, 0.1
    live_run.COALESCE_SECONDS = live_run.SHORTEST_SECONDS = 0.1
    run = mlflow.start_run()
    print(run.info.run_id, flush=True)
    client = mlflow.MlflowClient()
    while "system/summary/measured_hours" not in client.get_run(run.info.run_id).data.metrics:
        time.sleep(0.05)
    print(client.get_run(run.info.run_id).data.metrics["system/summary/measured_hours"], flush=True)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_summary_of_a_killed_run_is_refreshed_until_then_and_completed(
    program: Program, store: Store, spool: Path
) -> None:
    environ = {**ENVIRON, "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2", "MLFLOW_SYSMETRICS_SPOOL_DIR": str(spool)}
    finished = program(store.uri, LASTING, check=False, **environ)
    assert finished.returncode == -9, finished.stderr
    run_id, measured = finished.words[0], float(finished.words[1])
    command("reap", "--dir", str(spool), *AGED, "--apply", MLFLOW_TRACKING_URI=store.uri)
    run = store.client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.metrics["system/summary/measured_hours"] > measured > 0
    assert "system/summary/memory_max_percentage" in run.data.metrics


def test_reap_finds_a_silent_run_without_journal_on_the_server(
    killed: str, store: Store, spool: Path
) -> None:
    command("sync", "--dir", str(spool))
    for path in spool.iterdir():
        path.unlink()
    time.sleep(0.2)  # so that the last point is older than a tenth of a second
    found = command("reap", "--dir", str(spool), "--older-than", "0.1s", MLFLOW_TRACKING_URI=store.uri)
    assert killed in found.stdout


def test_a_run_that_trains_is_never_reaped(program: Program, store: Store, spool: Path) -> None:
    code = """
        import subprocess

        with mlflow.start_run():
            mlflow_sysmetrics.flush(60)
            reap = [sys.executable, "-m", "mlflow_sysmetrics.cli", "reap", "--older-than", "0.001s"]
            print("REAP", subprocess.run(reap, capture_output=True, text=True).stdout)
    """
    words = program(store.uri, code, MLFLOW_SYSMETRICS_SPOOL_DIR=str(spool)).words
    assert " ".join(words[words.index("REAP") :]).startswith("REAP No run is RUNNING")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_points_survive_a_replaced_store(
    killed: str, store: Store, spool: Path, empty_database: Path, tmp_path: Path
) -> None:
    sampled = journalled(spool)
    own = Path(store.uri.removeprefix("sqlite:///"))
    aside = own.rename(tmp_path / "aside.db")
    shutil.copy(empty_database, own)
    refused = command("sync", "--dir", str(spool), status=1)
    assert f"{store.uri} does not accept points of run {killed} (" in unwrapped(refused.stderr)
    assert journalled(spool) == sampled
    aside.replace(own)
    command("sync", "--dir", str(spool))
    assert set(stored(store, killed)) == sampled


def test_a_server_that_is_down_is_named_and_the_points_stay(spool: Path) -> None:
    from mlflow_sysmetrics.daemon.journal.journal import Journal

    journal = Journal.create(spool, 1_000_000)
    journal.append(journal.register("run", "http://127.0.0.1:9", 0), 0, 1000, {"system/cpu": 1.0})
    journal.close(delete=False)
    of_a_process_that_is_gone(journal.path)
    done = command("sync", "--dir", str(spool), "--wait", "0.1s", status=1)
    assert f"Error: http://127.0.0.1:9: Connection refused; 1 point still in {journal.path}" in unwrapped(
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert journalled(spool) == {("system/cpu", 1000, 1.0)}


def test_a_wrong_command_line_is_a_usage_error() -> None:
    outcomes: list[Any] = [
        command("sync", "--dir", "nowhere", status=2),
        command("reap", "--older-than", "soon", status=2),
        command("nothing", status=2),
    ]
    assert all("Error: " in done.stderr and "Traceback" not in done.stderr for done in outcomes)
