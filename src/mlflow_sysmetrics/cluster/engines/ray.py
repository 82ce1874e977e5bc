"""Ray: an agent on each node that works for the runs of this process.

The agent is an actor without CPUs, pinned to its node. It learns from the node's raylet which processes and
which GPUs belong to the runs: of a driver those of its whole job, of a worker (a Tune trial, a rank of Ray
Train) those of its placement group. So agents see neither the processes nor the GPUs of other jobs, and a
trial that fits into one process needs no agent.

Here nothing must initialise Ray: its functions do so by themselves if the program has shut it down a moment
before.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlflow_sysmetrics.cluster.engines.samplers import Run, Samplers, Share
from mlflow_sysmetrics.cluster.gpus import gpus_shown_by
from mlflow_sysmetrics.machine.visible_gpus.environment import CUDA

_WORKER_MODE = 1  # of Ray: a process that runs tasks or an actor; a driver has 0
_VARIABLES = "MLFLOW_"  # settings and credentials: an actor inherits nothing of its driver's environment
_OF_THIS_PROCESS = frozenset({"MLFLOW_RUN_ID", "MLFLOW_SYSMETRICS_RUN", "MLFLOW_SYSTEM_METRICS_NODE_ID"})


class Job(NamedTuple):
    """What an agent is to sample.

    Attributes:
        run: the run.
        rank: number of the node, for its name.
    """

    run: Run
    rank: int


class Nodes:
    """The nodes of the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._session: object = None
        self._ranks: dict[str, int] = {}  # a node that is gone keeps its number
        self._agents: dict[str, Any] = {}

    def is_connected(self) -> bool:
        """Returns whether the program has initialised Ray."""
        return bool(getattr(sys.modules.get("ray"), "is_initialized", bool)())

    def reconcile(self, runs: Sequence[Run]) -> Sequence[int]:
        """Starts agents on new nodes, forgets those of nodes that are gone, and tells all what to sample."""
        context = sys.modules["ray"].get_runtime_context()
        session = context.gcs_address, context.get_job_id()
        if session != self._session:
            self._session, self._agents, self._ranks = session, {}, {}
        group = placement_group()
        own, nodes = context.get_node_id(), _nodes(context, group)
        for node in [own, *nodes]:
            self._ranks.setdefault(node, len(self._ranks))
        for node in self._agents.keys() - nodes:
            del self._agents[node]
        for node in nodes:
            if node == own:
                continue
            jobs = dict.fromkeys(runs, self._ranks[node])
            if node in self._agents:
                _call(self._agents[node].sample, jobs, num_returns=0)
            else:
                self._agents[node] = _start_agent(node, jobs, group)
        return own_share(group).pids

    def close(self, timeout: float) -> None:
        """Ends all agents."""
        agents, self._agents = list(self._agents.values()), {}
        if not agents or not self.is_connected():
            return
        ray = sys.modules["ray"]
        with contextlib.suppress(Exception):  # a node is gone
            closing = [_call(agent.close) for agent in agents]
            _plain(ray.wait)(closing, num_returns=len(closing), timeout=timeout)
        for agent in agents:
            with contextlib.suppress(Exception):
                _plain(ray.kill)(agent)


class Agent:
    """Samples a node, in an actor on it.

    Args:
        environ: the variables of the process that has the runs.
        jobs: run -> number of this node.
        group: placement group of the runs; None for everything of the Ray job.
    """

    def __init__(self, environ: Mapping[str, str], jobs: Mapping[Run, int], group: str | None) -> None:
        self._visible = os.environ.get(CUDA, "")
        os.environ.update({**environ, CUDA: ""})  # only what is held is sampled, see `JobScope`
        self._group = group
        self._samplers = Samplers()
        self.sample(jobs)

    def sample(self, jobs: Mapping[Run, int]) -> None:
        """Samples these runs and no others."""
        share = own_share(self._group, self._visible)
        self._samplers.sample({Run(*run): rank for run, rank in jobs.items()}, share)

    def close(self, timeout: float) -> None:
        """Ends all and waits for the last points."""
        self._samplers.close(timeout)


def own_share(group: str | None, visible: str = "") -> Share:
    """Returns what the node of this process holds for its Ray job, or for a placement group of it.

    Args:
        group: placement group in hexadecimal; None for the whole job.
        visible: `CUDA_VISIBLE_DEVICES` of the raylet, whose items Ray's numbers count.
    """
    try:
        import ray
        from ray._private.internal_api import node_stats

        context = ray.get_runtime_context()
        own = context.get_node_id()
        [node] = [one for one in ray.nodes() if one["NodeID"] == own]
        stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
        pids, names = held(stats.core_workers_stats, context.get_job_id(), group, visible)
        return Share(pids, gpus_shown_by(",".join(names)) if names else ())
    except Exception:  # noqa: BLE001 - not a public interface of Ray
        return Share()


def held(
    workers: Iterable[Any], job: str, group: str | None, visible: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns the processes of a job that a raylet reports, and the names of their GPUs as CUDA has them.

    Args:
        workers: the raylet's core worker statistics.
        job: the job, in hexadecimal.
        group: placement group in hexadecimal, to leave out the job's other workers; None for all of them.
        visible: `CUDA_VISIBLE_DEVICES` of the raylet.
    """
    names = [name.strip() for name in visible.split(",") if name.strip()]
    pids, slots = set(), set()
    for worker in workers:
        used = dict(worker.used_resources)
        if worker.job_id.hex() != job or (group and not any(name.endswith(group) for name in used)):
            continue
        pids.add(worker.pid)
        slots |= {
            one.slot
            for name, held in used.items()
            if name == "GPU" or name.startswith("GPU_group_")
            for one in held.resource_slots
            if one.allocation > 0
        }
    gpus = tuple(names[slot] if slot < len(names) else str(slot) for slot in sorted(slots))
    return tuple(sorted(pids - {os.getpid()})), gpus


def placement_group() -> str | None:
    """Returns the placement group of this process, if it is a worker that belongs to one; else None."""
    from ray.util import get_current_placement_group

    found = get_current_placement_group()
    return None if found is None else found.id.hex()


def _nodes(context: Any, group: str | None) -> list[str]:
    """Returns the nodes: all that are alive for a driver, those of its placement group for a worker."""
    ray = sys.modules["ray"]
    alive = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
    if context.worker.mode != _WORKER_MODE:
        return sorted(alive)
    if group is None:
        return [context.get_node_id()]
    from ray.util import placement_group_table

    table = placement_group_table()
    bundles = table.get(group, {}).get("bundles_to_node_id", {})
    return [one for one in dict.fromkeys(bundles.values()) if one in alive]


def _start_agent(node: str, jobs: Mapping[Run, int], group: str | None) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    environ = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLES) and name not in _OF_THIS_PROCESS
    }
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    actor = sys.modules["ray"].remote(**options)(_actor_class())
    # By value, as an argument: a runtime environment would show the credentials in the dashboard.
    arguments = (environ, {tuple(run): rank for run, rank in jobs.items()}, group)
    return _call(actor, *arguments, **options)


def _actor_class() -> type:
    """Returns the class of the actor.

    It is made in a function so that it is pickled by value: on a node without this package it does nothing,
    where a class pickled by name would fail in the driver's output.
    """

    class SystemMetricsAgent:
        def __init__(self, environ: Any, jobs: Any, group: Any) -> None:
            import os

            silence = os.open(os.devnull, os.O_WRONLY)  # Ray prints an actor's output in the driver
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            try:
                from mlflow_sysmetrics.cluster.engines.ray import Agent
            except ImportError:
                self.agent = None
            else:
                self.agent = Agent(environ, jobs, group)

        def sample(self, jobs: Any) -> None:
            if self.agent is not None:
                self.agent.sample(jobs)

        def close(self) -> None:
            if self.agent is not None:
                self.agent.close(5.0)

    return SystemMetricsAgent


def _call(remote: Any, *arguments: object, **options: Any) -> Any:
    """Calls ``remote.remote(...)`` of an actor's class or method, without initialising Ray."""
    call = getattr(type(remote)._remote, "__wrapped__", None)  # noqa: SLF001 - public names initialise Ray
    if call is None:
        return remote.options(**options).remote(*arguments)
    return call(remote, arguments, {}, **options)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns one of Ray's functions as it is when it does not initialise Ray."""
    return getattr(function, "__wrapped__", function)
