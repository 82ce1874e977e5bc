"""The queue of a run: a send is a transaction, and only the queue changes its own state."""

from __future__ import annotations

import ast

import pytest

from mlflow_sysmetrics.daemon.delivery.points import Batch, Point, Spilled
from mlflow_sysmetrics.daemon.delivery.run_queue import POINTS_DROPPED, RunQueue
from mlflow_sysmetrics.daemon.journal.scan import JournaledRun
from syntax_trees import SOURCE, nodes, syntax_trees

DAEMON = SOURCE / "daemon"


def point(index: int) -> Point:
    return Point("system/x", float(index), 1000 * index)


@pytest.fixture
def queue() -> RunQueue:
    queue = RunQueue("run", 0, 10)
    queue.put([point(index) for index in range(5)])
    return queue


def taken(queue: RunQueue, most: int = 3) -> Batch:
    batch, _ = queue.take(most, 100)
    assert isinstance(batch, Batch)
    return batch


def test_taking_a_batch_removes_nothing(queue: RunQueue) -> None:
    queue.make_due(50)
    assert [one.value for one in taken(queue).points] == [0, 1, 2]
    assert (queue.waiting, queue.acknowledged) == (5, 0)
    assert queue.due_at is None


def test_accepting_a_batch_removes_its_points_and_ends_the_failures(queue: RunQueue) -> None:
    batch = taken(queue)
    queue.give_back(110)
    assert queue.accept(batch, {}) == (3, 0)
    assert (queue.waiting, queue.acknowledged, queue.failures) == (2, 3, 0)


def test_giving_a_batch_back_keeps_its_points_and_plans_the_retry(queue: RunQueue) -> None:
    batch = taken(queue)
    queue.give_back(110)
    assert (queue.waiting, queue.failures, queue.due_at) == (5, 1, 110)
    assert taken(queue) == batch


def test_discarding_a_batch_counts_its_points_as_dropped(queue: RunQueue) -> None:
    assert queue.discard(taken(queue), "HTTP 400") == (3, 3)
    assert (queue.waiting, queue.dropped, queue.tags) == (2, 3, {POINTS_DROPPED: "3"})


def test_points_dropped_since_they_were_taken_are_not_counted_again(queue: RunQueue) -> None:
    batch = taken(queue)
    queue.drop_oldest(2)
    assert queue.accept(batch, {}) == (1, 0)
    assert queue.dropped == 2


def test_a_tag_that_changed_since_it_was_taken_stays(queue: RunQueue) -> None:
    queue.put_tags({"kept": "old", "sent": "1"})
    batch, tags = queue.take(5, 100)
    assert isinstance(batch, Batch)
    queue.put_tags({"kept": "new"})
    queue.accept(batch, tags)
    assert queue.tags == {"kept": "new"}


def test_the_queue_of_a_dead_process_is_on_disk_and_closed() -> None:
    run = JournaledRun(0, "run", "uri", 0, None, None, 4, 2, ended=False, appended=9)
    queue = RunQueue.left_behind(run, 10, lambda _: None)  # type: ignore[arg-type,return-value]
    assert queue.peek(100) == Spilled(4, 9, 0)
    assert (queue.closed, queue.replayed, queue.tags) == (True, True, {POINTS_DROPPED: "2"})


@pytest.mark.heavy
def test_no_other_module_assigns_to_a_queue() -> None:
    assigned = [
        f"{path.name}:{node.lineno}"
        for path in DAEMON.rglob("*.py")
        if path.name != "run_queue.py"
        for node in nodes(syntax_trees()[path])
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if ast.unparse(node.value).split(".")[-1] in {"queue", "fullest"}
    ]
    assert not assigned
