"""The scheduler or launcher that started the job, its id there, and this node's name or rank.

Source:  environment variables that each of them documents for its jobs. Only the ones named here are read.
Order:   who hands out machines comes before who starts processes on them: torchrun inside Slurm is a Slurm
         job. The node's name is taken from the first that tells it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class _Scheduler(NamedTuple):
    """Variables of one scheduler, the more telling ones first."""

    name: str
    marks: tuple[str, ...]
    job: tuple[str, ...]
    node: tuple[str, ...]


_SCHEDULERS = (
    _Scheduler("slurm", ("SLURM_JOB_ID",), ("SLURM_JOB_ID",), ("SLURMD_NODENAME", "SLURM_NODEID")),
    _Scheduler("lsf", ("LSB_JOBID",), ("LSB_JOBID",), ()),
    _Scheduler("pbs", ("PBS_JOBID",), ("PBS_JOBID",), ("PBS_NODENUM",)),
    # NODE_NAME and POD_NAME by the usual downward API names; a pod's host name is its own name.
    _Scheduler("kubernetes", ("KUBERNETES_SERVICE_HOST",), ("POD_NAME", "HOSTNAME"), ("NODE_NAME",)),
    # Set by the raylet for its workers.
    _Scheduler("ray", ("RAY_JOB_ID", "RAY_RAYLET_PID"), ("RAY_JOB_ID",), ()),
    _Scheduler("dask", ("DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME"), (), ("DASK_WORKER_NAME",)),
    _Scheduler("torchrun", ("TORCHELASTIC_RUN_ID",), ("TORCHELASTIC_RUN_ID",), ("GROUP_RANK",)),
)


def scheduler_tags(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields sys.scheduler, sys.job_id and sys.node, as far as they are known."""
    present = [scheduler for scheduler in _SCHEDULERS if _first(environ, scheduler.marks)]
    if not present:
        return
    yield "sys.scheduler", present[0].name
    job = _first(environ, present[0].job)
    if job and job != "none":  # what torchrun calls a run that was given no id
        yield "sys.job_id", job
    node = next(filter(None, (_first(environ, scheduler.node) for scheduler in present)), None)
    if node:
        yield "sys.node", node


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    values = (environ.get(variable, "") for variable in variables)
    return next((value for value in values if value), None)
