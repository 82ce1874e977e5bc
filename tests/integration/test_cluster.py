"""The processes of a job on real nodes, or what stands for them: interpreters with a launcher's environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from cluster_jobs import RHYTHM, job, nodes, steps
from counting_server import counting_server
from mlflow import MlflowClient
from programs import OUR_THREADS, QUIET, Program

from mlflow_sysmetrics import LocalServer
from watching import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes are told apart by what Linux has")

WINDOW = 4  # seconds
RANK = """
    import sys, threading
    import mlflow
    run = mlflow.start_run() if {starts} else None
    print(run.info.run_id if run else "ready", flush=True)
    for question in sys.stdin:
        print("sysmetrics-sampler" in {{thread.name for thread in threading.enumerate()}}, flush=True)
    if run:
        mlflow.end_run()
"""


@pytest.fixture
def server(forked: None, tmp_path: Path) -> Iterator[LocalServer]:
    with LocalServer(directory=tmp_path / "server") as running:
        yield running


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process of a job of two nodes with two ranks each, and ends it after the test."""
    (tmp_path / "tmp").mkdir()
    with ExitStack() as stack:

        def start(uri: str, rank: int, code: str, **environ: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code)],
                env={
                    **os.environ,
                    **QUIET,
                    **RHYTHM,
                    **job(rank, tmp_path),
                    "MLFLOW_TRACKING_URI": uri,
                    **environ,
                },
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context((tmp_path / f"errors-{rank}").open("w")),
                text=True,
            )
            stack.enter_context(process)  # closes its streams, and waits for it
            stack.callback(process.kill)
            return process

        yield start


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        process.wait(timeout=60)


def test_nodes_join_the_run_of_the_first_rank_and_a_killed_sampler_is_replaced(
    server: LocalServer, started: Callable[..., subprocess.Popen[str]]
) -> None:
    client = MlflowClient(server.url)
    rhythm = {"MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": str(2 * WINDOW)}
    owner = started(server.url, 0, RANK.format(starts=True), **rhythm)
    run_id = said(owner)
    others = [started(server.url, rank, RANK.format(starts=False), **rhythm) for rank in (2, 3)]
    assert {said(one) for one in others} == {"ready"}
    threads = "system/node_1/process_threads"
    eventually(lambda: "system/node_1" in nodes(client, run_id))
    expected = {"sys.hostname", "sys.node_1.hostname", "sysmetrics.job"}
    eventually(lambda: expected <= client.get_run(run_id).data.tags.keys())  # written after the metrics
    tags = client.get_run(run_id).data.tags
    assert sum(key.startswith("sys.node_1.") for key in tags) <= 8
    assert not any(key.startswith("sys.node_0.") for key in tags)

    leader = next(one for one in others if samples(one))
    others.remove(leader)
    eventually(lambda: len(steps(client, run_id, threads)) > 1)
    killed_at = time.time() * 1000
    leader.send_signal(signal.SIGKILL)
    (heir,) = others
    eventually(lambda: samples(heir))
    eventually(
        lambda: any(point.timestamp > killed_at for point in client.get_metric_history(run_id, threads))
    )
    end(owner)
    end(heir)
    series = [
        client.get_metric_history(run_id, key)
        for key in client.get_run(run_id).data.metrics
        if key.startswith("system/node_1/")
    ]
    assert len(series) > 10
    for points in series:  # the same keys, with at most one window between the last point and the next
        times = [point.timestamp for point in points]
        # Private memory is read beside the ticks, and its first reading may come after the kill.
        assert times[0] < killed_at or "_uss_" in points[0].key, points[0].key
        assert killed_at < times[-1], points[0].key
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps, default=0) < 2000 * WINDOW, points[0].key
        found = [point.step for point in points]
        assert found == sorted(set(found)), points[0].key
    assert nodes(client, run_id) == {"system/node_0", "system/node_1"}
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.tags["sysmetrics.job"].endswith(" ended")


def samples(process: subprocess.Popen[str]) -> bool:
    """Returns whether a process samples its node."""
    assert process.stdin is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return said(process) == "True"


def test_processes_that_all_start_the_run_are_one_series_per_node(
    server: LocalServer, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """The run is made elsewhere and named by the environment, as a launcher of pods does."""
    client = MlflowClient(server.url)
    run_id = client.create_run("0").info.run_id
    ranks = [started(server.url, rank, RANK.format(starts=True), MLFLOW_RUN_ID=run_id) for rank in range(4)]
    assert {said(one) for one in ranks} == {run_id}
    eventually(lambda: sum(map(samples, ranks)) == 2)
    eventually(lambda: len(nodes(client, run_id)) == 2)
    first, *others = ranks
    end(*others)
    assert client.get_run(run_id).info.status == "FINISHED"  # as MLflow has it, for whoever ends it first
    end(first)
    assert nodes(client, run_id) == {"system/node_0", "system/node_1"}
    for node in ("node_0", "node_1"):
        found = steps(client, run_id, f"system/{node}/process_threads")
        assert found == sorted(set(found))
    assert "sys.hostname" in client.get_run(run_id).data.tags


def test_a_server_that_comes_late_is_waited_for(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], forked: None
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    follower = started(f"http://127.0.0.1:{port}", 2, RANK.format(starts=False))
    assert said(follower) == "ready"  # imported, and waits for nothing
    with LocalServer(directory=tmp_path / "server", port=port) as server:
        client = MlflowClient(server.url)
        tag = {"sysmetrics.job": "slurm:7 1"}
        run_id = client.create_run("0", tags=tag).info.run_id
        eventually(lambda: "system/node_1" in nodes(client, run_id))
        client.set_tag(run_id, "sysmetrics.job", "slurm:7 1 ended")
        client.set_terminated(run_id)
        end(follower)
    assert follower.returncode == 0


def test_a_node_that_knows_the_run_samples_into_its_journal_while_the_server_is_down(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    nowhere = "http://127.0.0.1:9"
    known = {"MLFLOW_SYSMETRICS_RUN": f"{nowhere}#{'7' * 32}", "MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "0"}
    follower = started(nowhere, 2, RANK.format(starts=False), **known)
    assert said(follower) == "ready"
    eventually(lambda: "system/node_1/process_threads" in journals(tmp_path))
    end(follower)
    assert follower.returncode == 0
    warnings = [
        line for line in (tmp_path / "errors-2").read_text().splitlines() if "mlflow-sysmetrics" in line
    ]
    assert len(warnings) <= 2, warnings


def journals(directory: Path) -> str:
    """Returns what waits on disk."""
    return "".join(path.read_text() for path in (directory / "spool").glob("*.jsonl"))


def test_a_training_of_one_process_asks_for_nothing_more(program: Program) -> None:
    with counting_server() as counted:
        program(counted.url, "with mlflow.start_run():\n    ticked(2)")
        asked = counted.counts()["requests"]
    assert asked.keys() <= {"runs/create", "runs/log-batch", "runs/update", "runs/set-tag"}, asked
    assert asked["runs/create"] == asked["runs/update"] == 1


def test_a_training_of_one_process_is_as_before(
    program: Program, server: LocalServer, tmp_path: Path
) -> None:
    """No module, thread, file or variable."""
    code = """
        before = dict(os.environ)
        with mlflow.start_run():
            ticked(2)
            names = sorted(thread.name for thread in threading.enumerate() if "sysmetrics" in thread.name)
        print(*names)
        print([name for name in sys.modules if name.startswith("mlflow_sysmetrics.cluster")])
        print({key for key in os.environ if key.startswith("MLFLOW_SYSMETRICS") and key not in before})
        print(os.listdir(os.environ["TMPDIR"]))
    """
    (tmp_path / "tmp").mkdir()
    finished = program(
        server.url, "import os, sys, threading\n" + textwrap.dedent(code), TMPDIR=str(tmp_path / "tmp")
    )
    names, modules, variables, files = finished.stdout.splitlines()[
        -4:
    ]  # MLflow 2.22 prints where the run is
    assert set(names.split()) <= {*OUR_THREADS, "sysmetrics-readings", "sysmetrics-recovery"}
    assert (modules, variables, files) == ("[]", "set()", "[]")
