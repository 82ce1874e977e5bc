"""The processes and GPUs of all members of a job, in the process that samples their node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drm_machine import card, machine
from nvidia_machines import ampere, host, tick
from small_machines import values
from test_process_linux import OWN, Proc

from fake_nvml import FakeNvml
from mlflow_sysmetrics.cluster.election import Member, this_member
from mlflow_sysmetrics.cluster.gpus import scope_of, visible_gpus
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.collectors.amd_linux import AmdLinux
from mlflow_sysmetrics.collectors.nvidia import Nvidia
from mlflow_sysmetrics.collectors.nvml.processes import Tree
from mlflow_sysmetrics.collectors.process_linux import ProcessLinux
from mlflow_sysmetrics.collectors.processes import births
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host, JobScope
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuOrdinals

RANK, OTHER_RANK, WORKER = 200, 300, 301


class Sampled:
    """The process tree of a job, read every ten seconds.

    Args:
        proc: the machine. This process is one of its processes.
        job: which processes are the job's; this one alone by default.
    """

    def __init__(self, proc: Proc, job: JobScope | None = None) -> None:
        self.job = job or JobScope()
        self._one = ProcessLinux(replace(proc.host(), job=self.job))
        self._now = 0.0

    def tick(self) -> dict[str, float]:
        self._now += 10
        found = {key.removeprefix("process_"): value for key, _, value, _ in self._one.collect(self._now)}
        if "cpu_percentage" in found:
            found["used"] = found["cpu_percentage"] / 10
        return found


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """This process, two ranks beside it, and a worker of one of them."""
    proc = Proc(tmp_path)
    for pid, parent in ((RANK, 1), (OTHER_RANK, 1), (WORKER, OTHER_RANK)):
        proc.put(pid, parent)
    return proc


def test_the_trees_of_all_members_are_added_up(proc: Proc) -> None:
    one = Sampled(proc)
    assert one.tick()["threads"] == 1
    one.job.update([OWN, RANK, OTHER_RANK])
    found = one.tick()
    assert (found["threads"], found["children"]) == (4, 1)


def test_the_time_of_members_counts_from_when_they_joined(proc: Proc) -> None:
    proc.put(RANK, 1, own=5000)
    one = Sampled(proc)
    one.tick()
    one.job.update([OWN, RANK])
    one.tick()
    proc.put(RANK, 1, own=5300)
    assert one.tick()["used"] == pytest.approx(3.0)


def test_a_member_that_has_ended_leaves(proc: Proc) -> None:
    one = Sampled(proc)
    one.job.update([OWN, RANK])
    one.tick()
    proc.end(RANK)
    one.tick()
    assert one.tick()["threads"] == 1


def test_a_member_that_left_the_job_leaves(proc: Proc) -> None:
    one = Sampled(proc)
    one.job.update([OWN, RANK])
    one.tick()
    one.job.update([OWN])
    one.tick()
    assert one.tick()["threads"] == 1


def test_what_children_used_before_is_not_counted_after_an_earlier_job(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(births, "_STATS_AT_FIRST", 1)  # as on a node with thousands of processes
    monkeypatch.setattr(births.Births, "_most", lambda _, __: 1)
    for pid in range(101, 104):
        proc.put(pid, OWN, own=5000)
    job = JobScope()
    job.update([RANK])
    job.update()
    one = Sampled(proc, job)
    one.tick()
    found = one.tick()
    assert (found["children"], found["used"]) == (3, 0)


def test_a_member_below_another_one_counts_once(proc: Proc) -> None:
    one = Sampled(proc)
    one.job.update([OWN, OTHER_RANK, WORKER])
    one.tick()
    one.tick()


def test_a_side_car_does_not_count_itself(proc: Proc) -> None:
    proc.put(OWN, 1, own=0)
    one = Sampled(proc)
    one.job.update([OTHER_RANK])
    one.tick()
    proc.put(OWN, 1, own=900)
    proc.put(OTHER_RANK, 1, own=100)
    found = one.tick()
    assert found["threads"] == 2
    assert found["used"] == pytest.approx(1.0)
    proc.end(OTHER_RANK)
    proc.end(WORKER)
    one.tick()
    assert one.tick() == {}


def test_a_member_that_does_not_exist_is_nothing(proc: Proc) -> None:
    one = Sampled(proc)
    one.job.update([OWN, 999])
    one.tick()
    assert one.tick()["threads"] == 1


def test_a_gpu_process_of_any_member_is_the_jobs(proc: Proc) -> None:
    job = JobScope()
    tree = Tree(Host(root=proc.root, job=job))
    assert not tree.holds(WORKER, 0.0)
    job.update([OTHER_RANK])
    assert tree.holds(WORKER, 20.0)
    assert not tree.holds(RANK, 20.0)


# Eight ranks, each of which sees one GPU.

UUIDS = [f"GPU-{number}" for number in range(8)]


def rank_with_gpu(number: int) -> tuple[Nvidia, JobScope, Host]:
    job = JobScope()
    nvml = FakeNvml(*(ampere(uuid) for uuid in UUIDS))
    machine = replace(
        host(nvml, environ={"CUDA_VISIBLE_DEVICES": str(number)}), job=job, gpu_ordinals=GpuOrdinals()
    )
    return Nvidia(machine), job, machine


def numbers(found: dict[str, float]) -> set[int]:
    return {int(key.split("_")[0]) for key in found}


def test_the_gpus_of_eight_ranks_are_in_one_place_under_their_own_numbers() -> None:
    one, job, machine = rank_with_gpu(5)
    assert numbers(tick(one)) == {0}  # as CUDA numbers what this process sees
    job.update(gpus=UUIDS)
    assert numbers(tick(one, 10)) == set(range(8))
    assert [machine.gpu_ordinals.of(uuid) for uuid in UUIDS] == list(range(8))


def test_a_rank_that_joins_later_adds_its_gpu() -> None:
    one, job, _ = rank_with_gpu(5)
    job.update(gpus=["GPU-5"])
    assert numbers(tick(one)) == {5}
    job.update(gpus=["GPU-2", "GPU-5"])
    assert numbers(tick(one, 10)) == {2, 5}


def test_a_choice_of_the_user_stays() -> None:
    job = JobScope()
    nvml = FakeNvml(*(ampere(uuid) for uuid in UUIDS))
    one = Nvidia(replace(host(nvml, "1,3"), job=job))
    job.update(gpus=UUIDS)
    assert numbers(tick(one)) == {1, 3}


def test_a_gpu_that_this_process_cannot_open_is_a_gap() -> None:
    """As with Slurm's device cgroups, where each task sees its own GPU only."""
    one, job, _ = rank_with_gpu(0)
    job.update(gpus=["GPU-0", "GPU-elsewhere"])
    assert numbers(tick(one)) == {0}
    assert any("GPU-elsewhere matches none" in gap for gap in one.gaps)


def test_a_rank_without_gpus_reads_those_of_the_others() -> None:
    job = JobScope()
    job.update(gpus=["GPU-4"])
    nvml = FakeNvml(*(ampere(uuid) for uuid in UUIDS))
    hidden = replace(host(nvml, environ={"CUDA_VISIBLE_DEVICES": ""}), job=job)
    assert numbers(tick(Nvidia(hidden))) == {4}
    job.update()
    with pytest.raises(Unavailable):
        Nvidia(hidden)


# From what each rank sees to the series of the one that samples.

SERIALS = [f"{0xA0 + number:x}" for number in range(8)]


def amd_node(root: Path) -> Host:
    """Returns a node of eight AMD GPUs, each with as many gigabytes in use as its number."""
    parts = []
    for number, serial in enumerate(SERIALS):
        name = f"card{number}"
        device = f"sys/class/drm/{name}/device"
        parts.append(card(f"0000:0{number}:00.0", "0x1002\n", "amdgpu", name=name, minor=128 + number))
        parts.append(
            {f"{device}/unique_id": f"{serial}\n", f"{device}/mem_info_vram_used": f"{number}000000000\n"}
        )
        parts.append({f"{device}/mem_info_vram_total": "64000000000\n"})
    return machine(root, *parts)


def members_of(ranks: list[Host]) -> list[Member]:
    eight = Job(scheduler="torchrun", job_id="7", size=8, local_size=8, nodes=1)
    return [this_member(pids=(100 + rank,), gpus=visible_gpus(eight, one)) for rank, one in enumerate(ranks)]


def memory(found: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in found.items() if key.endswith("memory_usage_megabytes")}


@pytest.mark.parametrize("variable", ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
def test_eight_ranks_with_an_amd_gpu_each_are_sampled_as_gpu_0_to_7(tmp_path: Path, variable: str) -> None:
    node = amd_node(tmp_path)
    ranks = [
        replace(node, environ={variable: str(number)}, gpu_ordinals=GpuOrdinals()) for number in range(8)
    ]
    members = members_of(ranks)
    assert [one.gpus for one in members] == [(f"GPU-{'0' * 14}{serial}",) for serial in SERIALS]
    job = JobScope()
    leader = AmdLinux(replace(ranks[5], job=job))
    assert memory(values(leader, 0)) == {
        "gpu_0_memory_usage_megabytes": 5000
    }  # before the others have joined
    job.update(*scope_of(members[5], members, None))
    with pytest.raises(Unavailable, match="have changed"):  # upon which it is built anew
        values(leader, 1)
    found = memory(values(AmdLinux(replace(ranks[5], job=job)), 2))
    assert found == {f"gpu_{number}_memory_usage_megabytes": 1000 * number for number in range(8)}


def test_eight_ranks_with_an_nvidia_gpu_each_are_sampled_as_gpu_0_to_7() -> None:
    nvml = FakeNvml(*(ampere(uuid) for uuid in UUIDS))
    ranks = [host(nvml, environ={"CUDA_VISIBLE_DEVICES": str(number)}) for number in range(8)]
    members = members_of(ranks)
    assert [one.gpus for one in members] == [(uuid,) for uuid in UUIDS]
    job = JobScope()
    job.update(*scope_of(members[5], members, None))
    machine_of_leader = replace(ranks[5], job=job, gpu_ordinals=GpuOrdinals())
    assert numbers(tick(Nvidia(machine_of_leader))) == set(range(8))
    assert [machine_of_leader.gpu_ordinals.of(uuid) for uuid in UUIDS] == list(range(8))


def test_gpus_of_one_vendor_are_not_looked_for_among_those_of_the_other(tmp_path: Path) -> None:
    job = JobScope()
    job.update(gpus=["GPU-00000000000000a3", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"])
    both = Host(job=job)
    assert both.wanted_gpus == "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    assert both.wanted_amd_gpus == "GPU-00000000000000a3"
    one = AmdLinux(replace(amd_node(tmp_path), job=job))
    assert memory(values(one, 0)) == {"gpu_3_memory_usage_megabytes": 3000}
    assert not any("matches none" in gap for gap in one.gaps)


def test_bindings_of_nvml_on_a_machine_of_amd_make_nothing_unknown(tmp_path: Path) -> None:
    node = replace(amd_node(tmp_path), has_nvml=lambda: True, load_nvml=FakeNvml)
    for environ in ({"ROCR_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "3"}):
        (member,) = members_of([replace(node, environ=environ)])
        assert member.gpus == ("GPU-00000000000000a3",)


def test_cards_without_a_unique_id_are_unknown_to_other_processes(tmp_path: Path) -> None:
    old = machine(tmp_path, card("0000:03:00.0", "0x1002\n", "amdgpu"))
    (member,) = members_of([replace(old, environ={"ROCR_VISIBLE_DEVICES": "0"})])
    assert member.gpus is None
