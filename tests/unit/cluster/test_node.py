"""What a node is, and its name."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.node import HOST_ID, NODE_NAMES, node_identity, node_name
from mlflow_sysmetrics.machine.host import Host

TWO_NODES = Job(scheduler="slurm", size=8, rank=4, nodes=2, node_rank=1)
POD = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{}.scope\n"


def machine(root: Path, *, boot: str = "b", group: str = "0::/\n", **environ: str) -> Host:
    (root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (root / "proc/self").mkdir(exist_ok=True)
    (root / "proc/sys/kernel/random/boot_id").write_text(f"{boot}\n")
    (root / "proc/self/cgroup").write_text(group)
    return Host(root=root, environ=environ)


def test_tasks_of_one_machine_share_a_node(tmp_path: Path) -> None:
    first = node_identity(machine(tmp_path, group="0::/slurm/job_7/step_0/task_0\n", RANK="0"))
    assert first == node_identity(machine(tmp_path, group="0::/slurm/job_7/step_0/task_1\n", RANK="1"))


@pytest.mark.parametrize("changed", [{"boot": "c"}, {"group": f"0::/docker/{'a1' * 32}\n"}, {HOST_ID: "x"}])
def test_machines_and_containers_differ(tmp_path: Path, changed: dict[str, str]) -> None:
    assert node_identity(machine(tmp_path)) != node_identity(machine(tmp_path, **changed))


def test_pods_of_one_machine_differ_and_their_containers_do_not(tmp_path: Path) -> None:
    one, other = "a" * 8 + "_" + "b" * 27, "c" * 8 + "_" + "d" * 27
    first = node_identity(machine(tmp_path, group=POD.format(one, "e" * 64)))
    assert first == node_identity(machine(tmp_path, group=POD.format(one, "f" * 64)))
    assert first != node_identity(machine(tmp_path, group=POD.format(other, "e" * 64)))


def test_containers_with_names_of_their_own_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = node_identity(machine(tmp_path))
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert first != node_identity(machine(tmp_path))


def test_a_node_is_named_after_the_smallest_rank_or_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu a/01.local")
    assert node_name(TWO_NODES, 1, machine(tmp_path)) == "node_1"
    assert node_name(TWO_NODES, 1, machine(tmp_path, **{NODE_NAMES: "host"})) == "gpu_a_01.local"
    assert node_name(TWO_NODES, None, machine(tmp_path)) == "gpu_a_01.local"


def test_keys_of_one_node_are_plain(tmp_path: Path) -> None:
    assert node_name(Job(scheduler="torchrun", size=8, nodes=1), 0, machine(tmp_path)) is None


def test_where_the_number_of_nodes_is_unknown_keys_name_the_node(tmp_path: Path) -> None:
    assert node_name(Job(scheduler="spark", size=4, rank=2), 2, machine(tmp_path)) == "node_2"
    assert node_name(None, 0, machine(tmp_path)) == "node_0"


def test_a_wrong_choice_of_names_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = machine(tmp_path, **{NODE_NAMES: "number"})
    assert {node_name(TWO_NODES, 1, host) for _ in range(2)} == {"node_1"}
    assert [record.getMessage().count("rank or host") for record in caplog.records] == [1]
