"""Finding the run of a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from fakes import unreachable
from mlflow_sysmetrics.cluster import rendezvous as module
from mlflow_sysmetrics.cluster.election import Election, this_member
from mlflow_sysmetrics.cluster.rendezvous import (
    GIVE_UP_SECONDS,
    Location,
    NodeFile,
    Rendezvous,
    TaggedRuns,
    TorchStore,
    location_in,
    parse_location,
)
from mlflow_sysmetrics.mlflow_api.fluent_state import ExperimentChoice
from mlflow_sysmetrics.mlflow_api.runs import FoundRun

HERE = Location("http://tracking:5000", "abc", 5)


class Source:
    """Knows the run from some number of questions on, and counts them."""

    def __init__(self, knows_from: float = float("inf")) -> None:
        self.asked = 0
        self._knows_from = knows_from

    def find(self) -> Location | None:
        self.asked += 1
        return HERE if self.asked >= self._knows_from else None


class Down(Source):
    """Fails."""

    def find(self) -> Location | None:
        super().find()
        raise unreachable("no answer")


def rendezvous(near: Sequence[Source], server: Source | None, *, asks: bool = True) -> Rendezvous:
    return Rendezvous(list(near), server, lambda: asks, 0.0, lambda: 1.0)


def look_every_second(one: Rendezvous, until: float) -> Location | None:
    now = 0.0
    while now <= until and not one.is_over(now):
        found = one.look(now)
        if found is not None:
            return found
        now += 1.0
    return None


def test_the_environment_names_the_run() -> None:
    known = {"MLFLOW_SYSMETRICS_RUN": "http://a#r1", "MLFLOW_RUN_ID": "r2"}
    assert location_in(known, lambda: "http://b") == Location("http://a", "r1")
    del known["MLFLOW_SYSMETRICS_RUN"]
    assert location_in(known, lambda: "http://b") == Location("http://b", "r2")
    assert location_in({"MLFLOW_RUN_ID": " "}, lambda: "http://b") is None


@pytest.mark.parametrize("text", ["", "#", "http://a", "http://a#", "#r1", "http://a#r\n1"])
def test_a_malformed_location_is_none(text: str) -> None:
    assert parse_location(text) is None


def test_a_location_survives_its_text() -> None:
    odd = Location("sqlite:////data/a#b.db", "r1")
    assert parse_location(odd.text) == odd


def test_the_server_is_asked_less_and_less_often() -> None:
    server = Source()
    assert look_every_second(rendezvous([], server), 60.0) is None
    assert server.asked == 4  # at 1, 4, 13 and 40 s


def test_a_run_that_is_there_costs_one_question() -> None:
    server = Source(1)
    assert look_every_second(rendezvous([Source()], server), 60.0) == HERE
    assert server.asked == 1


def test_the_search_ends_after_ten_minutes() -> None:
    server = Source()
    assert look_every_second(rendezvous([], server), 10_000.0) is None
    assert server.asked < 30
    assert rendezvous([], server).is_over(GIVE_UP_SECONDS)


def test_one_process_of_a_node_asks() -> None:
    server, near = Source(), Source(100)
    assert look_every_second(rendezvous([near], server, asks=False), 600.0) == HERE
    assert server.asked == 0


def test_a_server_that_is_down_is_asked_again() -> None:
    server = Down()
    assert look_every_second(rendezvous([Down()], server), 60.0) is None
    assert server.asked == 4


def test_after_a_run_has_ended_the_next_one_is_looked_for() -> None:
    one = rendezvous([Source(1)], Source(1))
    assert one.look(0.0) == HERE
    one.restart(HERE, 500.0)
    assert one.look(501.0) is None
    assert not one.is_over(1000.0)
    assert one.is_over(1100.0)


# The file of the node.


def test_the_processes_of_a_node_tell_each_other(tmp_path: Path) -> None:
    election = Election(tmp_path, "job")
    writer, reader = NodeFile(election), NodeFile(election)
    assert reader.find() is None
    writer.publish(HERE)
    assert reader.find() == HERE
    assert not NodeFile(election).is_stale


def test_what_an_earlier_attempt_has_left_does_not_count(tmp_path: Path) -> None:
    election = Election(tmp_path, "job")
    dead = {**this_member().process, "began": 1.0}
    (election.directory / "run.json").write_text(json.dumps({**HERE._asdict(), "process": dead}))
    file = NodeFile(election)
    assert (file.is_stale, file.find()) == (True, None)


# The tag on the tracking server.


class Server:
    """Stands in for the runs of a tracking server."""

    def __init__(self, *found: FoundRun) -> None:
        self.found = list(found)
        self.searches: list[tuple[list[str], str]] = []
        self.lists = 0

    def search(self, ids: Sequence[str], wanted: str, most: int) -> list[FoundRun]:
        self.searches.append((list(ids), wanted))
        return self.found[:most]

    def experiment_ids(self, name: str | None) -> list[str]:
        self.lists += 1
        return ["1", "2"] if name is None else ["7"]

    def close(self) -> None:
        pass


def tagged(value: str, run_id: str = "abc") -> FoundRun:
    return FoundRun(run_id, 5, {"sysmetrics.job": value})


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "experiment_of_environment", lambda: ExperimentChoice(None, "3"))


def search(server: Server, after: int | None = None) -> TaggedRuns:
    return TaggedRuns("slurm:7", lambda: HERE.tracking_uri, after, open_search=lambda _: server)


@pytest.mark.usefixtures("experiment")
def test_the_newest_run_of_the_job_is_found_with_one_request() -> None:
    server = Server(tagged("slurm:7 1000"), tagged("slurm:7 900", "older"))
    assert search(server).find() == HERE
    assert server.searches == [
        (["3"], "attributes.status = 'RUNNING' AND tags.`sysmetrics.job` LIKE 'slurm:7 %'")
    ]
    assert server.lists == 0


@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("value", ["slurm:7 1000 ended", "slurm:77 1000", "slurm:7 x 1000", "slurm:7", ""])
def test_other_runs_are_not_taken(value: str) -> None:
    assert search(Server(tagged(value))).find() is None


@pytest.mark.usefixtures("experiment")
def test_after_a_restart_the_run_of_the_killed_owner_is_not_taken() -> None:
    server = Server(tagged("slurm:7 1000"))
    assert search(server, after=2000).find() is None
    server.found.append(tagged("slurm:7 2500", "new"))
    assert search(server, after=2000).find() == Location(HERE.tracking_uri, "new", 5)


def test_a_named_experiment_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "experiment_of_environment", lambda: ExperimentChoice("demo", None))
    server = Server()
    searched = search(server)
    for _ in range(4):
        searched.find()
    assert ([ids for ids, _ in server.searches], server.lists) == ([["7"]] * 4, 1)
    searched.find()  # the owner may have set another one
    assert server.searches[-1][0] == ["1", "2"]


def test_without_an_experiment_all_are_listed_at_each_third_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirteen seconds cost four requests."""
    monkeypatch.setattr(module, "experiment_of_environment", lambda: ExperimentChoice(None, None))
    server = Server()
    searched = search(server)
    counts = []
    for _ in range(7):
        searched.find()
        counts.append(server.lists + len(server.searches))
    assert counts == [2, 3, 4, 6, 7, 8, 10]
    assert [ids for ids, _ in server.searches] == [["1", "2"]] * 7


# The store of torchrun's agent.


class Store:
    """As torch's TCPStore."""

    shared: ClassVar[dict[str, str]] = {}

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def check(self, keys: list[str]) -> bool:
        return all(key in self.shared for key in keys)

    def get(self, key: str) -> bytes:
        return self.shared[key].encode()

    def set(self, key: str, value: str) -> None:
        self.shared[key] = value


AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}


def test_the_store_is_used_once_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "shared", {})
    monkeypatch.delitem(module.sys.modules, "torch.distributed", raising=False)
    owner, other = TorchStore(AGENT), TorchStore(AGENT)
    assert TorchStore.is_promised(AGENT)
    assert not owner.publish(HERE)
    assert other.find() is None
    loaded = SimpleNamespace(TCPStore=Store, __spec__=SimpleNamespace())
    monkeypatch.setitem(module.sys.modules, "torch.distributed", loaded)
    assert other.find() is None
    assert owner.publish(HERE)
    assert other.find() == HERE
    assert TorchStore(AGENT, after=2**62).find() is None  # of an earlier attempt
