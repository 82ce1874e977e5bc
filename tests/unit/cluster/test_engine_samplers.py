"""What a process samples for an engine, and that its own node is sampled once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.cluster.election import Election, digest, this_member
from mlflow_sysmetrics.cluster.engines import samplers
from mlflow_sysmetrics.cluster.engines.samplers import OwnNode, Run, Samplers, Share
from mlflow_sysmetrics.cluster.node import node_identity
from mlflow_sysmetrics.machine.host import JOB_SCOPE

pytestmark = pytest.mark.unit
ONE, TWO = Run("http://tracking:5000", "1" * 32), Run("http://tracking:5000", "2" * 32)


class Sampler:
    """Records what it is told."""

    def __init__(self, run_id: str, **told: Any) -> None:
        self.run_id, self.told, self.closed = run_id, told, False

    def update(self, **told: Any) -> None:
        self.told.update(told)

    def close(self, timeout: float | None = None) -> None:
        self.closed = True


@pytest.fixture
def started() -> list[Sampler]:
    return []


@pytest.fixture
def many(started: list[Sampler]) -> Samplers:
    def start(run_id: str, _: str, **told: Any) -> Any:
        started.append(Sampler(run_id, **told))
        return started[-1]

    return Samplers(start)


def test_each_run_is_started_once_and_told_when_its_processes_change(
    many: Samplers, started: list[Sampler]
) -> None:
    many.sample({ONE: 1}, Share((11,), ("GPU-a",)))
    many.sample({ONE: 1, TWO: 1}, Share((11, 12), ("GPU-a", "GPU-b")))
    assert [one.run_id for one in started] == [ONE.run_id, TWO.run_id]
    assert {one.told["pids"] for one in started} == {(11, 12)}
    assert {one.told["gpus"] for one in started} == {("GPU-a", "GPU-b")}


def test_a_run_that_is_no_longer_wanted_is_closed(many: Samplers, started: list[Sampler]) -> None:
    many.sample({ONE: 1, TWO: 1}, Share((11,)))
    many.sample({TWO: 1}, Share((11,)))
    assert [one.closed for one in started] == [True, False]


def test_without_processes_of_the_run_those_of_the_agent_are_not_sampled(
    many: Samplers, started: list[Sampler]
) -> None:
    many.sample({ONE: 1}, Share())
    [pid] = started[0].told["pids"]
    assert pid > 2**22  # the largest that Linux gives
    assert started[0].told["gpus"] == ()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OwnNode]:
    yield OwnNode(lambda: tmp_path)
    JOB_SCOPE.update()


def election(base: Path, run: Run) -> Election:
    return Election(base, digest(*run, node_identity()))


def test_the_process_that_has_a_run_keeps_others_from_sampling_its_node(
    node: OwnNode, tmp_path: Path
) -> None:
    before = time.time()
    node.hold([ONE])
    other = election(tmp_path, ONE)
    assert not other.lead()
    node.hold([])
    assert other.lead()
    record = other.record()
    assert record is not None
    assert record.ended_at >= before  # so that the others leave instead of taking over


def test_it_leads_as_soon_as_another_one_lets_go(node: OwnNode, tmp_path: Path) -> None:
    other = election(tmp_path, ONE)
    other.join(this_member(pids=(os.getpid(),)))
    assert other.lead()
    node.hold([ONE])
    other.leave()
    node.hold([ONE])
    assert not election(tmp_path, ONE).lead()


def test_processes_of_the_job_on_this_node_are_sampled_with_the_own_ones(node: OwnNode) -> None:
    node.hold([ONE])
    node.tell((11, 12))
    assert JOB_SCOPE.roots == (os.getpid(), 11, 12)
    node.tell(())
    assert JOB_SCOPE.roots == ()


def test_a_run_that_a_job_has_elected_a_process_for_is_left_to_that(
    node: OwnNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "known_sampler", lambda *_: object())
    node.hold([ONE])
    assert election(tmp_path, ONE).lead()
