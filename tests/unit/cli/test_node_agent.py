"""When `node-agent` ends, and what it says."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
import pytest

from mlflow_sysmetrics.cli import node_agent
from mlflow_sysmetrics.cli.node_agent import Agent, State, TrackedRun, UnknownRun
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

pytestmark = pytest.mark.unit
RUN, URI = "a" * 32, "http://tracking:5000"
DOWN = Fault("Connection refused", Cause.DOWN)
REFUSED = Fault("HTTP 401", Cause.UNAUTHENTICATED, status_code=401)


class Sampler:
    """A sampler that leads."""

    node_name = "gpu-a01"
    is_leader = True
    is_over = False
    reason: str | None = None
    closed = False

    def close(self) -> None:
        self.closed = True


class World:
    """A server that answers as told, and a clock."""

    def __init__(self, *answers: State | Fault, wait: float = 600) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.asked: list[float] = []
        self.sampler = Sampler()
        self.started_at: float | None = None
        self.each_second: Callable[[], None] = lambda: None
        self.pids_end = self.ends_at = math.inf
        run: Any = SimpleNamespace(run_id=RUN, uri=URI, state=self.state)
        self.agent = Agent(
            run,
            self.start,
            wait=wait,
            clock=lambda: self.now,
            pause=self.pause,
            pids_run=self.do_pids_run,
        )

    def state(self) -> State:
        self.asked.append(self.now)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Fault):
            raise answer
        return answer

    def do_pids_run(self) -> bool:
        return self.now < self.pids_end

    def start(self) -> Any:
        self.started_at = self.now
        return self.sampler

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.sampler.is_over = self.now >= self.ends_at
        self.each_second()


def test_a_run_that_is_known_is_not_asked_for_again() -> None:
    world = World(State.ALIVE, State.ENDED)
    world.ends_at = 3600
    assert world.agent.run() == "the run has ended"
    assert (world.asked, world.sampler.closed) == ([0], True)


def test_nothing_is_started_for_a_run_that_has_ended() -> None:
    world = World(State.ENDED)
    assert world.agent.run() == "the run has ended"
    assert world.started_at is None


def test_nothing_is_started_for_a_run_that_the_server_does_not_have() -> None:
    world = World(State.UNKNOWN)
    with pytest.raises(UnknownRun):
        world.agent.run()
    assert world.started_at is None


def test_points_are_taken_while_the_server_cannot_be_reached() -> None:
    world = World(DOWN, DOWN, DOWN, State.ENDED)
    assert world.agent.run() == "the run has ended"
    assert world.started_at == 0
    assert world.asked == [0, 1, 3, 7]


def test_a_server_that_is_never_reached_ends_it_after_the_wait() -> None:
    world = World(DOWN, wait=60)
    with pytest.raises(Fault, match="refused"):
        world.agent.run()
    assert 60 <= world.now <= 90
    assert world.sampler.closed


def test_with_no_wait_a_server_that_is_down_ends_it_at_once() -> None:
    world = World(DOWN, wait=0)
    with pytest.raises(Fault):
        world.agent.run()
    assert (world.now, world.started_at) == (0, None)


def test_credentials_that_are_refused_end_it_at_once() -> None:
    world = World(REFUSED)
    with pytest.raises(Fault, match="401"):
        world.agent.run()
    assert world.started_at is None


def test_it_ends_with_the_processes_that_it_was_given() -> None:
    world = World(State.ALIVE)
    world.pids_end = 5
    assert world.agent.run() == "the processes to sample have ended"
    assert world.sampler.closed


def test_it_says_why_the_sampler_has_ended() -> None:
    world = World(State.ALIVE)
    world.ends_at, world.sampler.reason = 3, "the run is deleted"
    assert world.agent.run() == "the run is deleted"


def test_a_second_agent_says_that_it_waits_and_when_it_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(State.ALIVE)
    world.sampler.is_leader, world.ends_at = False, 5

    def lead() -> None:
        world.sampler.is_leader = world.now > 3

    world.each_second = lead
    world.agent.run()
    waiting, sampling = capsys.readouterr().out.replace("\n  ", " ").splitlines()
    assert waiting == "Another process samples this node for the run; waiting to take over."
    assert sampling == f"Sampling this node as gpu-a01 for run {RUN} on {URI}."


def test_a_process_that_does_not_run_is_a_wrong_use() -> None:
    assert node_agent._named_processes([os.getpid()])()
    assert node_agent._named_processes([])()
    with pytest.raises(click.BadParameter, match=r"a process that runs, got 5000001"):
        node_agent._named_processes([os.getpid(), 5_000_001])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("RUNNING", State.ALIVE),
        ("SCHEDULED", State.ALIVE),
        ("FINISHED", State.ENDED),
        ("FAILED", State.ENDED),
        ("KILLED", State.ENDED),
        (Fault("no run", Cause.MISSING, error_code="RESOURCE_DOES_NOT_EXIST"), State.UNKNOWN),
        (Fault("not an id", Cause.REFUSED, error_code="INVALID_PARAMETER_VALUE"), State.UNKNOWN),
        (Fault("deleted", Cause.DELETED, error_code="INVALID_PARAMETER_VALUE"), State.ENDED),
        (Fault("404 of a proxy", Cause.MISSING, status_code=404), None),
        (DOWN, None),
    ],
)
def test_what_the_server_answers_about_a_run(
    answer: str | Fault, expected: State | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(_: str) -> Any:
        if isinstance(answer, Fault):
            raise answer
        return SimpleNamespace(status=answer)

    monkeypatch.setattr(node_agent, "load", lambda _: None)
    run = TrackedRun(RUN, URI, lambda _: SimpleNamespace(state=state))  # type: ignore[arg-type, return-value]
    if expected is None:
        with pytest.raises(Fault):
            run.state()
    else:
        assert run.state() is expected
