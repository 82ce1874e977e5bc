"""Two jobs on one node, each with a run, two processes and two GPUs of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import forks
import pytest
from cluster_jobs import RHYTHM, job
from programs import PATIENT, PREAMBLE, QUIET, Remote

from watching import eventually

# The driver's library is a stand-in with four GPUs; the processes, the locks and the files are real.
RANK = f"""
import os, sys, time
sys.path.append({str(Path(__file__).parents[2])!r})
from fake_nvml import FakeGpu, FakeNvml
sys.modules["pynvml"] = FakeNvml(
    *(FakeGpu("H100", f"GPU-{{one}}", 80_000_000_000, one * 1_000_000_000) for one in range(4))
)
{PREAMBLE}
import subprocess
nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
children = [subprocess.Popen([sys.executable, "-Sc", "import time; time.sleep(60)"], **nowhere)
            for _ in range(int(os.environ["CHILDREN"]))]
run = mlflow.start_run() if os.environ["SLURM_PROCID"] == "0" else None
print(run.info.run_id if run else "ready", flush=True)
sys.stdin.read()
for child in children:
    child.kill()
    child.wait()
if run:
    mlflow.end_run()
"""

Start = Callable[[str, int, int], "subprocess.Popen[str]"]


@pytest.fixture
def start(remote: Remote, tmp_path: Path) -> Iterator[Start]:
    """Starts a rank of a job of two that is on one node, and ends it with the test."""
    (tmp_path / "tmp").mkdir()
    started: list[subprocess.Popen[str]] = []

    def begin(job_id: str, rank: int, gpu: int) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            **QUIET,
            **PATIENT,
            **RHYTHM,
            **job(rank, tmp_path),
            "SLURM_JOB_ID": job_id,
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "1",
            "CUDA_VISIBLE_DEVICES": str(gpu),
            "MLFLOW_TRACKING_URI": remote.uri,
            "CHILDREN": "3" if job_id == "7" else "0",
        }
        process = forks.popen(
            ["-c", RANK], env=environ, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_each_run_has_the_processes_and_gpus_of_its_own_job(remote: Remote, start: Start) -> None:
    ranks = {
        job_id: [start(job_id, rank, 2 * (job_id == "8") + rank) for rank in range(2)] for job_id in "78"
    }
    runs = {job_id: said(first) for job_id, (first, _) in ranks.items()}
    assert {said(second) for _, second in ranks.values()} == {"ready"}
    both = {"7": ({0, 1}, 6), "8": ({2, 3}, 0)}  # the GPUs of a job and how many children its ranks have
    for job_id, (_, children) in both.items():
        eventually(lambda: len(found(remote, runs[job_id], "gpu_")) == 2)  # noqa: B023 - called in this turn
        eventually(lambda: children in found(remote, runs[job_id], "process_children")["process_children"])  # noqa: B023
    for processes in ranks.values():
        end(*processes)
    for job_id, (gpus, children) in both.items():
        used = found(remote, runs[job_id], "gpu_")
        assert used == {f"gpu_{gpu}_memory_usage_megabytes": {1000.0 * gpu} for gpu in gpus}
        counts = found(remote, runs[job_id], "process_children")["process_children"]
        assert max(counts) == children
        assert {key.rpartition("/")[0] for key in remote.keys(runs[job_id])} == {"system"}


def found(remote: Remote, run_id: str, beginning: str) -> dict[str, set[float]]:
    """Returns the values of some series: of GPUs, those of the memory in use."""
    series = {key.removeprefix("system/"): points for key, points in remote.server.points(run_id).items()}
    return {
        key: {point["value"] for point in points}
        for key, points in series.items()
        if key.startswith(beginning) and (beginning != "gpu_" or key.endswith("memory_usage_megabytes"))
    }


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.wait(timeout=60) == 0
