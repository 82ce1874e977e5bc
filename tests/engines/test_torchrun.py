"""A real torchrun with gloo: two nodes of two ranks, told apart by an identity that each is given.

Not in CI: it takes a minute, for four times torch. There, an interpreter per rank stands for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_jobs import RHYTHM, job, nodes, steps
from mlflow import MlflowClient
from programs import QUIET

from mlflow_sysmetrics import LocalServer

pytestmark = pytest.mark.engines


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    with LocalServer(directory=tmp_path / "server") as running:
        yield running


TRAINING = """
    import os, signal, sys, time
    import mlflow, torch.distributed as dist
    from pathlib import Path
    mode, out = sys.argv[1], Path(sys.argv[2])
    dist.init_process_group("gloo")
    rank, run_id = dist.get_rank(), [None]
    if rank == 0:
        run_id = [mlflow.start_run().info.run_id]
        out.write_text(run_id[0])
    if mode == "all ranks":
        dist.broadcast_object_list(run_id)
        if rank:
            mlflow.start_run(run_id=run_id[0])
    time.sleep(float(os.environ["SECONDS"]))
    dist.barrier()
    if rank == 0 or mode == "all ranks":
        mlflow.end_run()
"""
RESTARTED = """
    import os, signal, sys, time
    import mlflow, torch.distributed
    from pathlib import Path
    out, rank, again = Path(sys.argv[2]), os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    if rank == "0":
        run = mlflow.start_run(run_id=out.read_text() if again else None)
        out.write_text(run.info.run_id)
    time.sleep(float(os.environ["SECONDS"]))
    if rank == "1" and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    mlflow.end_run()
"""


def torchrun(
    directory: Path, uri: str, code: str, mode: str, *arguments: str, node: int
) -> subprocess.Popen[str]:
    script = directory / "training.py"
    script.write_text(textwrap.dedent(code))
    own = {name: value for name, value in job(0, directory).items() if "SLURM" not in name}
    own["MLFLOW_SYSMETRICS_HOST_ID"] = f"machine {node}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments),
            *(str(script), mode, str(directory / "run")),
        ],
        env={**os.environ, **QUIET, **RHYTHM, **own, "MLFLOW_TRACKING_URI": uri, "SECONDS": "12"},
        cwd=directory,
        text=True,
    )


def one_point_per_step(client: MlflowClient, run_id: str, node: str) -> bool:
    found = steps(client, run_id, f"{node}/process_threads")
    return found == sorted(set(found))


@pytest.mark.parametrize("mode", ["first rank", "all ranks"])
def test_torchrun_on_two_nodes(server: LocalServer, tmp_path: Path, mode: str) -> None:
    pytest.importorskip("torch", reason="needs the extra [train]")
    (tmp_path / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    meeting += ["--local-addr", "127.0.0.1"]
    started = [torchrun(tmp_path, server.url, TRAINING, mode, *meeting, node=node) for node in range(2)]
    assert [one.wait(timeout=180) for one in started] == [0, 0]
    client = MlflowClient(server.url)
    run_id = (tmp_path / "run").read_text()
    assert nodes(client, run_id) == {"system/node_0", "system/node_1"}
    assert all(one_point_per_step(client, run_id, f"system/node_{number}") for number in range(2))
    assert {"sys.hostname", "sys.node_1.hostname"} <= client.get_run(run_id).data.tags.keys()


def test_a_rank_that_torchrun_restarts_continues_the_series(server: LocalServer, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra [train]")
    (tmp_path / "tmp").mkdir()
    one = torchrun(tmp_path, server.url, RESTARTED, "", "--standalone", "--max-restarts", "1", node=0)
    assert one.wait(timeout=180) == 0
    client = MlflowClient(server.url)
    run_id = (tmp_path / "run").read_text()
    assert nodes(client, run_id) == {"system"}
    assert one_point_per_step(client, run_id, "system")
