"""A process whose program does not start the run of its job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_sysmetrics.cluster import following
from mlflow_sysmetrics.cluster.following import Follower
from mlflow_sysmetrics.cluster.rendezvous import Location

FIRST, SECOND = Location("http://a", "r1"), Location("http://a", "r2")


class Runs:
    """Stands in for the rendezvous: these runs, one after another."""

    def __init__(self, *found: Location) -> None:
        self.left = list(found)
        self.over: list[Location] = []

    def is_over(self, _now: float) -> bool:
        return not self.left

    def look(self, _now: float) -> Location:
        return self.left.pop(0)

    def restart(self, over: Location, _now: float) -> None:
        self.over.append(over)


class Sampler(SimpleNamespace):
    """Stands in for a sampler whose run has ended."""

    def unfollow(self) -> None:
        self.is_over = True


def follower(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> tuple[Follower, list[Location]]:
    one, joined = Follower(in_job=True), []

    def join(location: Location) -> None:
        joined.append(location)
        one._sampler = Sampler(tracking_uri=location.tracking_uri, run_id=location.run_id, is_over=True)

    monkeypatch.setattr(following.launch, "call_in_loader", lambda call: call())
    monkeypatch.setattr(one, "_wait_for_mlflow", lambda: True)
    monkeypatch.setattr(one, "_prepare", lambda: (runs, None))
    monkeypatch.setattr(one, "_join", join)
    return one, joined


def test_one_run_after_another_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(FIRST, SECOND)
    one, joined = follower(monkeypatch, runs)
    one.run()
    assert (joined, runs.over) == ([FIRST, SECOND], [FIRST, SECOND])


def test_a_run_of_its_own_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    one, joined = follower(monkeypatch, Runs(FIRST))
    one.enter(SECOND)
    one.run()
    assert joined == []


def test_a_run_that_is_only_followed_is_left_for_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = follower(monkeypatch, Runs())
    for own, left in ((FIRST, False), (SECOND, True)):
        one._sampler = sampler = Sampler(tracking_uri="http://a", run_id="r1", is_over=False)
        one.enter(own)
        assert sampler.is_over is left


def test_what_goes_wrong_is_not_the_programs_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = follower(monkeypatch, Runs(FIRST))

    def fails(_location: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(one, "_join", fails)
    one.run()


@pytest.mark.parametrize("child", [False, True])
def test_workers_of_a_rank_do_not_follow(monkeypatch: pytest.MonkeyPatch, child: bool) -> None:
    started: list[str] = []
    monkeypatch.setattr(following, "_follower", None)
    monkeypatch.setattr(following, "start_thread", lambda _run, name: started.append(name))
    monkeypatch.setattr(following.multiprocessing, "parent_process", lambda: object() if child else None)
    following.start(in_job=True)
    following.start(in_job=True)
    assert started == ([] if child else ["sysmetrics-follow"])
