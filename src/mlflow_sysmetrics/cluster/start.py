"""The node samplers of this process, at most one per run."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import replace

from mlflow_sysmetrics.cluster.election import this_member
from mlflow_sysmetrics.cluster.gpus import visible_gpus
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.sampler import EXPLICIT, NodeSampler
from mlflow_sysmetrics.daemon import launch
from mlflow_sysmetrics.daemon.arguments import check_run_id, check_tracking_uri
from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.clients import import_mlflow
from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored
from mlflow_sysmetrics.runtime.native import RLock
from mlflow_sysmetrics.settings import Settings

_lock = RLock()  # re-entrant: a signal handler may call in
_samplers: dict[tuple[str, str], NodeSampler] = {}
_ends_with_process = False


def start_node_sampler(
    run_id: str,
    tracking_uri: str | None = None,
    *,
    node_name: str | None = None,
    rank: int | None = None,
    pids: Iterable[int] | None = None,
    gpus: Iterable[str] | None = None,
) -> NodeSampler:
    """Samples this node for a run, unless another process of this node does so for the same run.

    The process that is elected attaches the run with the node's name in its keys, ``system/<node>/...``; the
    others wait, and one of them goes on if the first ends or is killed. Calling this again for the same run
    returns the same object, which ends with as many calls of its `close`.

    Args:
        run_id: the run; it is never started or ended here.
        tracking_uri: its tracking server; by default the current one.
        node_name: name of this node; by default ``node_<number>`` by its launcher, or plain keys if the job
            has only one node. `MLFLOW_SYSTEM_METRICS_NODE_ID` overrides it.
        rank: number of this node, if the launcher's is wrong or there is none.
        pids: processes that belong to the job with all their descendants; by default this one.
        gpus: UUIDs of the GPUs that the job may see here; by default those of the environment.

    Returns:
        The sampler; call its `close`, or use it as a context manager.

    Raises:
        TypeError: an argument is of a wrong type.
        SettingsError: `node_name` cannot be part of a metric name, or another argument is out of range.
        ThreadUnavailable: no thread can be started, a RuntimeError.
    """
    check_run_id(run_id)
    given_uri = check_tracking_uri(tracking_uri)
    if rank is not None:
        _check_number("rank", rank, 0)
    settings = Settings.from_environ()
    if node_name is not None:
        replace(settings, node_id=node_name)  # raises
    roots = None if pids is None else tuple(_check_number("pids", pid, 1) for pid in pids)
    uuids = None if gpus is None else _check_gpus(gpus)
    if given_uri is None:  # else only the process that is elected needs MLflow
        import_mlflow()
    job = Job.from_environ(os.environ)
    if rank is not None:
        job = replace(job or Job(scheduler="agent"), node_rank=rank)
    launch.wait()
    sampler = sampler_of(run_id, given_uri, settings, job=job, given_name=node_name)
    sampler.hold(EXPLICIT)
    try:
        sampler.begin(
            this_member(
                node_rank=None if job is None else job.node_rank,
                pids=(os.getpid(),) if roots is None else roots,
                gpus=visible_gpus(job) if uuids is None else uuids,
                are_held=uuids is not None,
            )
        )
    except BaseException:  # of a signal handler, or no thread can be started
        sampler.drop(EXPLICIT, 0)
        raise
    return sampler


def known_sampler(tracking_uri: str, run_id: str) -> NodeSampler | None:
    """Returns this process's sampler for a run, if it has one."""
    return _samplers.get((tracking_uri, run_id))


def sampler_of(
    run_id: str,
    tracking_uri: str | None,
    settings: Settings,
    *,
    job: Job | None,
    given_name: str | None = None,
    started_at: int | None = None,
) -> NodeSampler:
    """Returns this process's sampler for a run, which is made at the first call."""
    global _ends_with_process  # noqa: PLW0603 - once per process
    key = anchored(tracking_uri or str(current_tracking_uri())), run_id
    with _lock:
        sampler = _samplers.get(key)
        if sampler is None or sampler.is_over:
            sampler = _samplers[key] = NodeSampler(
                run_id,
                key[0],
                settings,
                job=job,
                given_name=given_name,
                started_at=started_at,
                forget=_forget,
            )
        if not _ends_with_process:
            launch.end_with_interpreter()  # first: exit functions run in reverse order
            atexit.register(_end_with_process)
            _ends_with_process = True
        return sampler


def _end_with_process() -> None:
    for sampler in list(_samplers.values()):
        sampler.end_with_process()


def _forget(sampler: NodeSampler) -> None:
    with _lock:
        key = sampler.tracking_uri, sampler.run_id
        if _samplers.get(key) is sampler:
            del _samplers[key]


def _check_number(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer >= {least}, got {value!r}")
    if value < least:
        raise SettingsError(f"{name} must be an integer >= {least}, got {value!r}")
    return value


def _check_gpus(gpus: Iterable[str]) -> tuple[str, ...]:
    found = (gpus,) if isinstance(gpus, str) else tuple(gpus)
    for uuid in found:
        if not isinstance(uuid, str) or not uuid:
            raise TypeError(f'gpus must be UUIDs such as "GPU-8932f937-...", got {uuid!r}')
    return found


def _forget_parent() -> None:
    global _lock, _ends_with_process  # noqa: PLW0603
    _lock = RLock()
    _samplers.clear()
    _ends_with_process = False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
