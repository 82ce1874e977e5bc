"""The hosts of a Dask cluster are sampled once each, by one of their worker processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import forks
import pytest
from programs import PATIENT, QUIET, Remote

pytest.importorskip("distributed")

# Without `programs.PREAMBLE`: each worker process imports this file.
BEGIN = """
import os, signal, sys, time
from distributed import Client, LocalCluster

def samplers():
    start = sys.modules.get("mlflow_sysmetrics.cluster.start")
    return [] if start is None else [one.is_leader for one in start._samplers.values()]

def has_mlflow():
    return "mlflow" in sys.modules

def leaders(client):
    return [worker for worker, led in client.run(samplers, on_error="ignore").items() if any(led)]

def eventually(found):
    ends = time.monotonic() + 120
    while not found():
        assert time.monotonic() < ends, found
        time.sleep(0.1)

def plugins(dask_scheduler):
    return [name for name in dask_scheduler.worker_plugins if "mlflow" in name]

def main():
    import mlflow
    with LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, env=ENVIRON) as cluster:
        with Client(cluster) as client:
            run(mlflow, cluster, client)
"""
END = """
if __name__ == "__main__":
    main()
"""


def run(remote: Remote, folder: Path, code: str) -> list[str]:
    """Runs a program and returns the words that it prints."""
    path = folder / "program.py"
    path.write_text(BEGIN + code + END)
    environ = {**os.environ, **QUIET, **PATIENT, "MLFLOW_TRACKING_URI": remote.uri, "TMPDIR": str(folder)}
    done = forks.run_interpreter([path], env=environ, cwd=folder, timeout=400)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(("🏃", "🧪"))][-1].split()


def sections(remote: Remote, run_id: str) -> set[str]:
    return {key.rpartition("/")[0] for key in remote.keys(run_id)}


OTHER_HOST = """
WORKERS, ENVIRON = 3, {"MLFLOW_SYSMETRICS_HOST_ID": "another"}

def run(mlflow, cluster, client):
    with mlflow.start_run() as active:
        eventually(lambda: len(leaders(client)) == 1)
        first = leaders(client)[0]
        with_mlflow = sum(client.run(has_mlflow).values())
        victim = client.run(os.getpid)[first]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(leaders(client)) == 1 and leaders(client) != [first])
        time.sleep(1.5)
    eventually(lambda: not client.run_on_scheduler(plugins))
    eventually(lambda: not any(client.run(samplers).values()))
    print(active.info.run_id, with_mlflow)
"""


def test_one_of_three_processes_samples_their_host_and_another_one_goes_on_when_it_is_killed(
    remote: Remote, tmp_path: Path
) -> None:
    run_id, with_mlflow = run(remote, tmp_path, OTHER_HOST)
    other = f"system/{socket.gethostname()}"
    assert sections(remote, run_id) == {"system", other}
    assert with_mlflow == "1"  # the others have not imported what they may never need
    for key, points in remote.server.points(run_id).items():
        steps = [point["step"] for point in points]
        assert len(steps) == len(set(steps)), key


OWN_HOST = """
WORKERS, ENVIRON = 2, {}

def run(mlflow, cluster, client):
    with mlflow.start_run() as active:
        eventually(lambda: all(client.run(samplers).values()))
        before = len(leaders(client))
        cluster.scale(3)
        client.wait_for_workers(3)
        eventually(lambda: len(list(filter(None, client.run(samplers).values()))) == 3)
        print(active.info.run_id, before, len(leaders(client)))
"""


def test_the_program_itself_samples_the_host_that_it_shares_with_its_workers(
    remote: Remote, tmp_path: Path
) -> None:
    run_id, before, after = run(remote, tmp_path, OWN_HOST)
    assert (sections(remote, run_id), before, after) == ({"system"}, "0", "0")
