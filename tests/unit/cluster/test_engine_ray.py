"""What Ray's nodes are told, against a stand-in for its interface; `nox -s engines` has the real one."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.cluster.engines import ray as engine
from mlflow_sysmetrics.cluster.engines.samplers import Run, Share

pytestmark = pytest.mark.unit
RUN = Run("http://tracking:5000", "a" * 32)
GROUP = "f9cabe43c80d7dbe51abe897148801000000"


class Method:
    """A method of an actor, or the class of one; its public names would initialise Ray."""

    def __init__(self, cluster: Cluster, name: str, node: str = "") -> None:
        self.cluster, self.name, self.node = cluster, name, node

    def remote(self, *_: object, **__: object) -> None:
        raise AssertionError("this initialises Ray if the program has just shut it down")

    options = remote

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        raise AssertionError("so does this")


def _plain_remote(self: Method, args: Any, kwargs: Any, **options: Any) -> Any:
    self.cluster.calls.append((self.name, self.node, args, options))
    if self.name != "actor":
        return (self.name, self.node)
    node = options["scheduling_strategy"].node_id
    return SimpleNamespace(
        node=node, sample=Method(self.cluster, "sample", node), close=Method(self.cluster, "close", node)
    )


Method._remote.__wrapped__ = _plain_remote  # type: ignore[attr-defined]


@dataclass
class Cluster:
    """A cluster of named nodes, of which this process is on the first."""

    nodes: list[str] = field(default_factory=lambda: ["n0", "n1", "n2"])
    mode: int = 0
    group: str | None = None
    bundles: Mapping[int, str] = field(default_factory=dict)
    session: str = "gcs:1"
    initialised: bool = True
    calls: list[Any] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        ray, util, strategies = (ModuleType(one) for one in ("ray", "ray.util", "ray.util.strategies"))
        ray.is_initialized = lambda: self.initialised  # type: ignore[attr-defined]
        ray.nodes = lambda: [{"NodeID": one, "Alive": True} for one in self.nodes]  # type: ignore[attr-defined]
        ray.get_runtime_context = lambda: SimpleNamespace(  # type: ignore[attr-defined]
            gcs_address=self.session,
            get_job_id=lambda: "01000000",
            get_node_id=lambda: "n0",
            worker=SimpleNamespace(mode=self.mode),
        )
        ray.remote = lambda **_: lambda _: Method(self, "actor")  # type: ignore[attr-defined]
        ray.wait = lambda *_, **__: None  # type: ignore[attr-defined]
        ray.kill = lambda actor: self.killed.append(actor.node)  # type: ignore[attr-defined]
        found = None if self.group is None else SimpleNamespace(id=SimpleNamespace(hex=lambda: self.group))
        util.get_current_placement_group = lambda: found  # type: ignore[attr-defined]
        util.placement_group_table = lambda: {self.group: {"bundles_to_node_id": dict(self.bundles)}}  # type: ignore[attr-defined]
        strategies.NodeAffinitySchedulingStrategy = lambda node, soft: SimpleNamespace(
            node_id=node, soft=soft
        )  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "ray", ray)
        patch.setitem(sys.modules, "ray.util", util)
        patch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)

    def started(self) -> list[tuple[str, dict[Any, int], str | None]]:
        """Returns node, ranks and placement group of each agent that was started."""
        return [
            (options["scheduling_strategy"].node_id, args[1], args[2])
            for name, _, args, options in self.calls
            if name == "actor"
        ]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(engine, "own_share", lambda *_: Share((42,)))
    made = Cluster()
    made.install(monkeypatch)
    return made


def test_a_driver_has_an_agent_on_every_other_node(cluster: Cluster) -> None:
    assert tuple(engine.Nodes().reconcile([RUN])) == (42,)
    assert cluster.started() == [("n1", {tuple(RUN): 1}, None), ("n2", {tuple(RUN): 2}, None)]
    options = cluster.calls[0][3]
    assert (options["num_cpus"], options["scheduling_strategy"].soft) == (0, False)


def test_nodes_that_come_get_an_agent_and_new_numbers(cluster: Cluster) -> None:
    nodes = engine.Nodes()
    nodes.reconcile([RUN])
    cluster.nodes = ["n0", "n2", "a-new-one"]
    cluster.calls.clear()
    nodes.reconcile([RUN])
    assert cluster.started() == [("a-new-one", {tuple(RUN): 3}, None)]
    assert [(name, node) for name, node, *_ in cluster.calls if name == "sample"] == [("sample", "n2")]


def test_an_agent_that_is_told_again_leaves_no_object_behind(cluster: Cluster) -> None:
    nodes = engine.Nodes()
    nodes.reconcile([RUN])
    nodes.reconcile([RUN])
    assert {options.get("num_returns") for name, *_, options in cluster.calls if name == "sample"} == {0}


def test_a_trial_in_one_process_has_no_agent(cluster: Cluster) -> None:
    cluster.mode = 1
    engine.Nodes().reconcile([RUN])
    assert cluster.calls == []


def test_a_worker_has_agents_on_the_nodes_of_its_placement_group_only(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.mode, cluster.group, cluster.bundles = 1, GROUP, {0: "n0", 1: "n2", 2: "n2"}
    cluster.install(monkeypatch)
    engine.Nodes().reconcile([RUN])
    assert cluster.started() == [("n2", {tuple(RUN): 1}, GROUP)]


def test_another_cluster_gets_agents_of_its_own(cluster: Cluster) -> None:
    nodes = engine.Nodes()
    nodes.reconcile([RUN])
    cluster.session = "gcs:2"
    cluster.calls.clear()
    nodes.reconcile([RUN])
    assert len(cluster.started()) == 2


def test_the_end_closes_and_kills_all_agents(cluster: Cluster) -> None:
    nodes = engine.Nodes()
    nodes.reconcile([RUN])
    nodes.close(1)
    assert [node for name, node, *_ in cluster.calls if name == "close"] == ["n1", "n2"]
    assert cluster.killed == ["n1", "n2"]


def test_after_a_shutdown_nothing_is_called(cluster: Cluster) -> None:
    nodes = engine.Nodes()
    nodes.reconcile([RUN])
    cluster.initialised = False
    cluster.calls.clear()
    nodes.close(1)
    assert (cluster.calls, cluster.killed, nodes.is_connected()) == ([], [], False)


def test_settings_and_credentials_are_given_as_arguments(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("MLFLOW_RUN_ID", "b" * 32)
    engine.Nodes().reconcile([RUN])
    _, _, (environ, *_), options = cluster.calls[0]
    assert environ["MLFLOW_TRACKING_TOKEN"] == "secret"
    assert "MLFLOW_RUN_ID" not in environ
    assert "PATH" not in environ
    assert "secret" not in repr(options)  # a runtime environment is shown in Ray's dashboard


def worker(pid: int, job: str = "01000000", **used: Any) -> SimpleNamespace:
    """Returns a worker as the raylet reports it; resources are lists of (slot, share)."""
    resources = {
        name: SimpleNamespace(
            resource_slots=[SimpleNamespace(slot=slot, allocation=part) for slot, part in held]
        )
        for name, held in used.items()
    }
    return SimpleNamespace(pid=pid, job_id=bytes.fromhex(job), used_resources=resources)


def test_gpus_and_processes_of_other_jobs_are_not_seen() -> None:
    workers = [
        worker(11, GPU=[(1, 1.0)]),
        worker(12, CPU=[(0, 1.0)]),
        worker(13, job="02000000", GPU=[(0, 1.0)]),
    ]
    assert engine.held(workers, "01000000", None, "") == ((11, 12), ("1",))


def test_a_run_of_a_placement_group_sees_only_that() -> None:
    mine = {
        f"GPU_group_{GROUP}": [(2, 0.5)],
        f"GPU_group_0_{GROUP}": [(2, 0.5)],
        f"CPU_group_{GROUP}": [(0, 1)],
    }
    workers = [worker(11, GPU=[(1, 1.0)]), worker(12, **mine), worker(13, **mine)]
    assert engine.held(workers, "01000000", GROUP, "") == ((12, 13), ("2",))


def test_numbers_count_the_gpus_that_the_raylet_sees() -> None:
    workers = [worker(11, GPU=[(0, 1.0), (1, 1.0)])]
    assert engine.held(workers, "01000000", None, "GPU-a1, GPU-b2") == ((11,), ("GPU-a1", "GPU-b2"))
    assert engine.held(workers, "01000000", None, "5") == ((11,), ("5", "1"))


def test_a_gpu_that_is_not_held_is_not_seen() -> None:
    assert engine.held([worker(11, GPU=[(0, 0.0)])], "01000000", None, "") == ((11,), ())


def test_the_agent_itself_is_not_sampled() -> None:
    assert engine.held([worker(os.getpid())], "01000000", None, "") == ((), ())


def test_without_the_statistics_of_the_raylet_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray._private.internal_api", None)
    assert engine.own_share(None) == Share()


def test_the_actor_does_nothing_on_a_node_without_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    blob = cloudpickle.dumps(engine._actor_class())
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setitem(sys.modules, "mlflow_sysmetrics", None)
    monkeypatch.setitem(sys.modules, "mlflow_sysmetrics.cluster.engines.ray", None)
    agent = pickle.loads(blob)({}, {}, None)
    agent.sample({})
    agent.close()
