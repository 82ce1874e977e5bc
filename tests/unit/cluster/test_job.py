"""The job that a launcher's environment describes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mlflow_sysmetrics import monitor
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.facts.surroundings import LAUNCHERS

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu-a01",
    "MASTER_PORT": "29500",
}
SLURM_TASK = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
    "SLURM_RESTART_COUNT": "1",
}


def job(environ: Mapping[str, str]) -> Job:
    found = Job.from_environ(environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            TORCHRUN,
            Job(
                scheduler="torchrun",
                job_id="gpu-a01/29500",
                attempt=2,
                size=8,
                rank=5,
                local_rank=1,
                local_size=4,
                nodes=2,
                node_rank=1,
            ),
        ),
        (
            SLURM_TASK,
            Job(
                scheduler="slurm", job_id="77", attempt=1, size=8, rank=6, local_rank=2, nodes=2, node_rank=1
            ),
        ),
        (
            {
                "SUBMITIT_LOCAL_JOB_ID": "812",
                "SUBMITIT_LOCAL_NTASKS": "2",
                "SUBMITIT_LOCAL_GLOBALID": "1",
                "SUBMITIT_LOCAL_LOCALID": "1",
                "SUBMITIT_LOCAL_NODEID": "0",
                "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            },
            Job(scheduler="submitit", job_id="812", size=2, rank=1, local_rank=1, nodes=1, node_rank=0),
        ),
        (
            {
                "PBS_JOBID": "9.pbs",
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "OMPI_COMM_WORLD_NODE_RANK": "1",  # of the process on its node
                "PMIX_NAMESPACE": "prterun-1",
            },
            Job(
                scheduler="mpi",
                job_id="prterun-1",
                size=4,
                rank=3,
                local_rank=1,
                local_size=2,
                nodes=2,
                node_rank=1,
            ),
        ),
        (
            {
                "LSB_JOBID": "5",
                "PMI_RANK": "1",
                "PMI_SIZE": "2",
                "MPI_LOCALRANKID": "0",
                "MPI_LOCALNRANKS": "1",
            },
            Job(
                scheduler="mpi",
                job_id="5",
                size=2,
                rank=1,
                local_rank=0,
                local_size=1,
                nodes=2,
                node_rank=1,
            ),
        ),
        (
            {
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "JOB_COMPLETION_INDEX": "3",
                "HOSTNAME": "train-3",
            },
            Job(scheduler="kubernetes", job_id="train", rank=3, node_rank=3),
        ),
        (
            {
                "PYSPARK_TORCH_DISTRIBUTOR_RDZV_ID": "r1",
                **TORCHRUN,
                "NODE_RANK": "5",
                "GROUP_RANK": "5",
                "LOCAL_WORLD_SIZE": "1",
                "GROUP_WORLD_SIZE": "8",
            },
            Job(scheduler="spark", job_id="r1", attempt=2, size=8, rank=5, node_rank=5),
        ),
        (  # Ray Train's workers
            {
                "RAY_JOB_ID": "01000000",
                "RANK": "1",
                "WORLD_SIZE": "2",
                "LOCAL_RANK": "0",
                "LOCAL_WORLD_SIZE": "1",
                "NODE_RANK": "1",
                "MASTER_ADDR": "10.0.0.4",
                "MASTER_PORT": "35001",
            },
            Job(
                scheduler="env",
                job_id="01000000/10.0.0.4/35001",
                size=2,
                rank=1,
                local_rank=0,
                local_size=1,
                nodes=2,
                node_rank=1,
            ),
        ),
    ],
    ids=["torchrun", "slurm", "submitit", "openmpi", "mpich in lsf", "indexed job", "spark", "ray train"],
)
def test_a_launcher_is_understood(environ: Mapping[str, str], expected: Job) -> None:
    assert job(environ) == expected


def test_a_job_is_one_line_for_people() -> None:
    assert (
        str(job(TORCHRUN)) == "torchrun gpu-a01/29500: rank 5 of 8, local rank 1 of 4, node 1 of 2, attempt 2"
    )
    assert str(Job(scheduler="env", rank=0)) == "env without an id: rank 0"


def test_the_innermost_launcher_counts() -> None:
    assert job(SLURM_TASK | TORCHRUN).scheduler == "torchrun"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script
        {"WORLD_SIZE": "8"},  # without a rank
        {**TORCHRUN, "WORLD_SIZE": "many"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "web-7"},
    ],
)
def test_no_job_is_made_up(environ: Mapping[str, str]) -> None:
    assert Job.from_environ(environ) is None


def test_a_job_of_one_process_is_not_several() -> None:
    alone = job(TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0", "GROUP_WORLD_SIZE": "1"})
    assert (alone.is_several, alone.spans_nodes) == (False, False)


def test_a_restart_does_not_change_the_key() -> None:
    """Torchrun counts restarts for each node apart, so the number is not the same on all."""
    assert job(TORCHRUN).key == job(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "0"}).key


def test_without_an_id_there_is_no_key() -> None:
    assert job({"RANK": "0", "WORLD_SIZE": "2"}).key is None


def test_the_quick_check_knows_every_launcher() -> None:
    sizes = {size for launcher in LAUNCHERS for size in launcher.size}
    assert sizes == set(monitor._JOB_SIZES)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "2"}, True),
        ({"JOB_COMPLETION_INDEX": "0"}, True),
        ({"WORLD_SIZE": "2", "MLFLOW_SYSMETRICS_CLUSTER": "off"}, False),
        ({"WORLD_SIZE": "2", "MLFLOW_SYSMETRICS_CLUSTER": "auto"}, True),
    ],
)
def test_the_quick_check(environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.os, "environ", environ)
    assert monitor.may_have_other_processes() is expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"local_size": 3, "size": 8, "nodes": 2}, 3),
        ({"size": 8, "nodes": 1}, 8),
        ({"size": 7, "nodes": 2}, 4),
        ({"size": 8}, None),
        ({}, None),
    ],
)
def test_processes_that_are_not_counted_are_taken_to_be_spread_evenly(
    known: dict[str, int], expected: int | None
) -> None:
    assert Job(scheduler="slurm", **known).likely_local_size == expected
