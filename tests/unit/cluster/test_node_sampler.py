"""What the members of a node do, step by step: the lock and the files are real, the attachments are not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.cluster import election, handover, sampler, start
from mlflow_sysmetrics.cluster.election import this_member
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.sampler import NodeSampler
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.run_series import Steps
from mlflow_sysmetrics.errors import JournalUnavailable, SettingsError
from mlflow_sysmetrics.machine.host import JOB_SCOPE
from mlflow_sysmetrics.settings import Settings

URI = "http://tracking:5000"
OWNER, SECOND = "owner", "second"


class Attached:
    """Stands in for an attachment."""

    def __init__(self, settings: Settings) -> None:
        self.node_id = settings.node_id
        self.began = False
        self.ended = False
        self.tags: dict[str, str] = {}
        self.steps = Steps()
        self.queue = SimpleNamespace(refused=None)
        self.is_late = False
        self.made_last_point = threading.Event()
        self.series = SimpleNamespace(channel=SimpleNamespace(queue=self.queue), ended=self.made_last_point)
        self.refusal: str | None = None
        self.announcer = SimpleNamespace(speaks=True)
        self.hear_of_end: Callable[[Mapping[str, str]], object] | None = None

    def begin(self, _settings: Settings, _started_at: int | None) -> None:
        self.began = True

    def detach(self, _timeout: float | None = None) -> bool:
        self.ended = True
        if not self.is_late:
            self.made_last_point.set()
        return True

    def release(self) -> None:
        self.ended = True

    def put_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def offer_host_tags(self) -> None:
        self.tags["sys.offered"] = ""

    def watch_end(self, ended: Callable[[Mapping[str, str]], object]) -> None:
        self.hear_of_end = ended


@pytest.fixture
def attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Attached]]:
    """What was attached, by whichever member; the threads are the test's own calls of `step`."""
    made: list[Attached] = []

    def prepare(_run_id: str, _uri: str, settings: Settings) -> Attached:
        made.append(Attached(settings))
        return made[-1]

    monkeypatch.setattr(election.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(sampler, "prepare", prepare)
    monkeypatch.setattr(sampler, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(sampler.Loop, "start", lambda _: None)
    monkeypatch.setattr(sampler, "seconds_to_next_step", lambda _: 0)
    monkeypatch.setattr(sampler.launch, "call_in_loader", lambda call: call())
    yield made
    JOB_SCOPE.update()


def job(rank: int = 0, *, nodes: int = 2, local_size: int = 2) -> Job:
    return Job(
        scheduler="slurm",
        job_id="7",
        size=nodes * local_size,
        rank=rank,
        local_rank=rank % local_size,
        local_size=local_size,
        nodes=nodes,
        node_rank=rank // local_size,
    )


def member(
    name: str = SECOND, rank: int = 1, *, nodes: int = 2, settings: Settings | None = None, **own: Any
) -> NodeSampler:
    """Returns a process of the job that has joined."""
    this = job(rank, nodes=nodes)
    one = NodeSampler("run", URI, settings or Settings(), job=this)
    one.hold(name, owner=name == OWNER)
    one.begin(this_member(node_rank=this.node_rank, pids=(os.getpid(),), **own))
    return one


def step(*members: NodeSampler) -> None:
    for one in members:
        one._step()


def test_one_of_a_node_attaches_the_run_under_its_name(attached: list[Attached]) -> None:
    first, second = member(rank=2), member(rank=3)
    step(first, second)
    assert [(one.node_id, one.began) for one in attached] == [("node_1", True)]
    assert (first.is_leader, second.is_leader) == (True, False)
    assert (first.node_name, second.node_name) == ("node_1", "node_1")
    for one in (first, second):
        one.drop(SECOND)


def test_a_job_on_one_node_keeps_plain_keys(attached: list[Attached]) -> None:
    member(nodes=1).drop(SECOND)
    assert attached[0].node_id is None


def test_an_explicit_node_id_wins(attached: list[Attached]) -> None:
    member(settings=Settings(node_id="rack/7")).drop(SECOND)
    assert attached[0].node_id == "rack/7"


def test_the_next_one_takes_over_with_the_same_keys(attached: list[Attached]) -> None:
    """Also where its own rank would give another name, as after an elastic restart."""
    first, second = member(rank=2), member(rank=5)
    first.drop(SECOND)
    step(second)
    assert [one.node_id for one in attached] == ["node_1", "node_1"]
    assert attached[0].ended
    assert second.is_leader
    second.drop(SECOND)


def test_who_takes_over_uses_no_step_of_the_one_before(attached: list[Attached]) -> None:
    first, second = member(rank=2), member(rank=3)
    now = time.time_ns() // 1_000_000
    began = now - 10_900
    before = attached[0].steps
    for passed in (500, 100, 0):  # all in one second of the run
        before.place(now - passed, began)
    last = before.put_on([Point("key", 1.0, now)])[0].step
    assert last is not None
    first.drop(SECOND)
    step(second)
    now = time.time_ns() // 1_000_000
    attached[1].steps.place(now, began)
    (point,) = attached[1].steps.put_on([Point("key", 1.0, now)])
    assert point.step is not None
    assert point.step > last
    second.drop(SECOND)


def test_nobody_takes_over_before_the_last_point_is_made(
    attached: list[Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_LAST_POINT_SECONDS", 0.001)
    first, second = member(rank=2), member(rank=3)
    attached[0].is_late = True
    first.drop(SECOND, 0)
    step(second)
    assert not second.is_leader
    attached[0].made_last_point.set()
    step(first, second)
    assert second.is_leader
    second.drop(SECOND)


def test_a_source_that_hangs_does_not_keep_the_others_from_sampling(
    attached: list[Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_LAST_POINT_SECONDS", 0.001)
    first, second = member(rank=2), member(rank=3)
    attached[0].is_late = True
    first.drop(SECOND, 0)
    step(first, second)
    assert second.is_leader
    assert not attached[0].made_last_point.is_set()
    second.drop(SECOND)


def test_the_next_step_is_that_of_the_next_second_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover.time, "time", lambda: 1000.75)
    assert handover.seconds_to_next_step(999_500) == pytest.approx(0.75)
    assert (
        handover.seconds_to_next_step(None) == 1
    )  # a second later it is another one, whenever the run began


def test_the_end_of_the_owner_ends_the_others_of_its_node(attached: list[Attached]) -> None:
    second, owner = member(rank=1), member(OWNER, rank=0)
    assert second.is_leader
    owner.drop(OWNER, ended=True)
    step(second)
    assert attached[0].ended
    assert (second.is_over, second.reason) == (True, "the run has ended")


def test_nobody_takes_over_from_an_owner_that_has_ended_the_run(attached: list[Attached]) -> None:
    owner, second = member(OWNER, rank=0), member(rank=1)
    owner.drop(OWNER, ended=True)
    step(second)
    assert second.is_over
    assert len(attached) == 1


def test_the_end_of_a_secondary_ends_its_own_part_only(attached: list[Attached]) -> None:
    second, owner = member(rank=1), member(OWNER, rank=0)
    second.drop(SECOND, ended=True)
    step(owner)
    assert owner.is_leader
    assert len(attached) == 2
    owner.drop(OWNER, ended=True)


def test_a_run_that_is_begun_again_is_sampled_again(attached: list[Attached]) -> None:
    member(OWNER, rank=0).drop(OWNER, ended=True)
    again = member(OWNER, rank=0)
    assert again.is_leader
    step(again)
    assert not again.is_over
    again.drop(OWNER, ended=True)
    assert len(attached) == 2


def test_the_server_says_that_the_run_is_over(attached: list[Attached]) -> None:
    first = member(rank=2)
    hear = attached[0].hear_of_end
    assert hear is not None
    hear({"sysmetrics.job": "slurm:7 1000"})  # a secondary has ended it, and its owner goes on
    step(first)
    assert first.is_leader
    hear({"sysmetrics.job": "slurm:7 1000 ended"})
    step(first)
    assert (first.is_over, attached[0].ended) == (True, True)


def test_a_run_without_an_owner_in_the_job_is_over_when_it_has_ended(attached: list[Attached]) -> None:
    first = member(rank=2)
    hear = attached[0].hear_of_end
    assert hear is not None
    hear({})
    step(first)
    assert first.is_over


def test_a_run_that_the_server_rejects_is_over(attached: list[Attached]) -> None:
    first = member(rank=2)
    attached[0].queue.refused = "Run 'run' not found"
    step(first)
    assert (first.is_over, first.reason) == (True, "Run 'run' not found")


def test_the_owner_tags_the_run_with_the_job(attached: list[Attached]) -> None:
    owner = member(OWNER, rank=0)
    key, began = attached[0].tags["sysmetrics.job"].split()
    assert (key, began.isdecimal()) == ("slurm:7", True)
    owner.drop(OWNER, ended=True)
    assert attached[0].tags["sysmetrics.job"] == f"slurm:7 {began} ended"


def test_a_run_inside_another_one_is_not_announced(attached: list[Attached]) -> None:
    trial = NodeSampler("run", URI, Settings(), job=job(0))
    trial.hold(OWNER, owner=True, announced=False)
    trial.begin()
    trial.drop(OWNER, ended=True)
    assert not {"sysmetrics.job"} & attached[0].tags.keys()
    assert attached[0].ended


def test_without_tags_of_machines_the_run_can_be_found(attached: list[Attached]) -> None:
    member(OWNER, rank=0, settings=Settings(tags=False)).drop(OWNER)
    assert attached[0].tags.keys() == {"sysmetrics.job"}


def test_without_locks_the_first_process_of_a_node_samples(
    attached: list[Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_: Path) -> None:
        raise JournalUnavailable("no lock in /nfs: Function not implemented")

    monkeypatch.setattr(election.Ownership, "acquire", no_locks)
    first, second = member(rank=0), member(rank=1)
    step(first, second)
    assert (first.is_leader, second.is_leader) == (True, False)
    assert len(attached) == 1
    for one in (first, second):
        one.drop(SECOND)


def test_a_leader_tags_the_run_for_an_owner_on_its_node(attached: list[Attached]) -> None:
    second = member(rank=1)
    assert "sysmetrics.job" not in attached[0].tags
    assert not attached[0].announcer.speaks
    assert "sys.offered" not in attached[0].tags
    owner = member(OWNER, rank=0)
    step(second)
    assert "sys.offered" in attached[0].tags  # it has those of the node already
    assert attached[0].announcer.speaks
    assert attached[0].tags["sysmetrics.job"].startswith("slurm:7 ")
    owner.drop(OWNER, ended=True)
    step(second)


def test_the_leader_follows_processes_and_gpus_of_all(attached: list[Attached]) -> None:
    first = member(rank=0, gpus=("GPU-a",))
    assert JOB_SCOPE.gpus == ("GPU-a",)  # of two processes, so the other one probably has another
    assert JOB_SCOPE.roots == ()  # this process
    second = NodeSampler("run", URI, Settings(), job=job(1))
    second.hold(SECOND)
    second.begin(this_member(node_rank=0, pids=(os.getppid(),), gpus=("GPU-b", "GPU-a")))
    step(first)
    assert JOB_SCOPE.gpus == ("GPU-a", "GPU-b")
    assert set(JOB_SCOPE.roots) == {os.getpid(), os.getppid()}
    assert len(attached) == 1
    second.drop(SECOND)
    first.drop(SECOND)


def test_gpus_that_all_see_keep_their_numbers(attached: list[Attached]) -> None:
    shared = ("GPU-a", "GPU-b")
    first, second = member(rank=0, gpus=shared), member(rank=1, gpus=shared)
    step(first)
    assert JOB_SCOPE.gpus == ()
    for one in (first, second):
        one.drop(SECOND)
    assert len(attached) == 1


def test_without_files_the_first_process_of_a_node_samples(
    attached: list[Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election.tempfile, "gettempdir", lambda: "/proc/nowhere")
    first, second = member(rank=0), member(rank=1)
    step(first, second)
    assert (first.is_leader, second.is_leader) == (True, False)
    assert len(attached) == 1
    for one in (first, second):
        one.drop(SECOND)


def test_a_follower_ends_when_its_launcher_is_gone(
    attached: list[Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = NodeSampler("run", URI, Settings(), job=job(2))
    one.follow()
    one.begin()
    monkeypatch.setattr(sampler.os, "getppid", lambda: 1)
    step(one)
    assert (one.is_over, attached[0].ended) == (True, True)
    assert one.reason == "the processes of the job are gone"


def test_an_agent_ends_when_its_processes_are_gone(attached: list[Attached]) -> None:
    one = NodeSampler("run", URI, Settings(), job=None)
    one.hold("agent")
    one.begin(this_member(pids=(2**22 + 1,)))
    step(one)
    assert (one.is_over, attached[0].ended) == (True, True)


def test_a_run_with_two_holders_ends_with_the_second(attached: list[Attached]) -> None:
    one = member(rank=0)
    one.hold("explicit")
    one.drop(SECOND)
    assert not attached[0].ended
    one.drop("explicit")
    assert attached[0].ended


# start_node_sampler


@pytest.mark.usefixtures("attached")
def test_starting_twice_is_one_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.launch, "end_with_interpreter", lambda: None)
    monkeypatch.setattr(start, "atexit", SimpleNamespace(register=lambda _: None))
    first = start.start_node_sampler("run", URI, node_name="a")
    again = start.start_node_sampler("run", URI, node_name="a")
    assert first is again
    assert first.node_name == "a"
    first.close()
    assert first.is_leader
    again.close()
    assert first.is_over
    with start.start_node_sampler("run", URI, rank=3) as numbered:
        assert numbered.node_name == "a"  # as the node was called before


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"run_id": ""}, SettingsError, "run_id must be"),
        ({"run_id": 7}, TypeError, "run_id must be"),
        ({"node_name": "a:b"}, SettingsError, "node_id must be"),
        ({"rank": -1}, SettingsError, "rank must be an integer >= 0, got -1"),
        ({"rank": "0"}, TypeError, "rank must be an integer >= 0, got '0'"),
        ({"pids": [0]}, SettingsError, "pids must be an integer >= 1, got 0"),
        ({"pids": [True]}, TypeError, "pids must be an integer"),
        ({"gpus": [0]}, TypeError, "gpus must be UUIDs"),
        ({"tracking_uri": ""}, SettingsError, "tracking_uri must"),
    ],
)
def test_wrong_input_is_refused_at_once(named: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"run_id": "run", "tracking_uri": URI} | named
    with pytest.raises(error, match=message):
        start.start_node_sampler(given.pop("run_id"), **given)
