"""Orphans that their server rejects: kept for a month, without bothering the program that tries them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from dead_processes import URI, RecoveringProcess, die, let_a_month_pass, replayed

from fakes import STARTED_AT, FakeSink, not_allowed, run_refused
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.journal.scan import scan
from mlflow_sysmetrics.daemon.journal.spool import journals

NOT_FOUND = "HTTP 404 RESOURCE_DOES_NOT_EXIST"


def another_store(*known: str, error: Exception | None = None) -> FakeSink:
    """Returns a sink that has never had any other runs than these."""
    sink = FakeSink()
    send = sink.send

    def refuse(run_id: str, *rest: object) -> None:
        if run_id not in known:
            raise error or run_refused(NOT_FOUND)
        send(run_id, *rest)  # type: ignore[arg-type]

    sink.send = refuse  # type: ignore[method-assign]
    return sink


def test_points_of_an_unknown_run_are_delivered_once_the_server_knows_it(tmp_path: Path) -> None:
    path = die(tmp_path, acknowledged=10)
    outcome = replayed(path, another_store())
    assert (outcome.delivered, outcome.dropped, outcome.waiting, outcome.faults) == (0, 0, 20, ())
    assert replayed(path, FakeSink()).delivered == 20


def test_kept_points_are_reported_with_reason_and_date(tmp_path: Path) -> None:
    (kept,) = replayed(die(tmp_path), another_store()).kept
    assert kept.startswith(f"{URI} does not accept points of run run_0 ({NOT_FOUND}); kept until 20")


def test_the_other_runs_of_the_journal_are_delivered_once(tmp_path: Path) -> None:
    path = die(tmp_path, runs=3)
    assert replayed(path, another_store("run_0", "run_2")).delivered == 60
    assert replayed(path, FakeSink()).delivered == 30


def test_points_of_a_run_unknown_for_a_month_are_given_up(tmp_path: Path) -> None:
    path = die(tmp_path)
    let_a_month_pass(path)
    outcome = replayed(path, another_store())
    assert (outcome.dropped, outcome.waiting, outcome.kept) == (30, 0, ())
    assert not path.exists()


def test_a_month_old_orphan_survives_a_sync_that_does_not_reach_its_server(tmp_path: Path) -> None:
    path = die(tmp_path)
    let_a_month_pass(path)
    assert replayed(path, FakeSink(down=True)).waiting == 30
    assert path.exists()


def test_a_journal_of_an_undetached_run_is_kept_if_the_server_does_not_know_the_run(tmp_path: Path) -> None:
    """Otherwise `reap` would not find it when the right store is back."""
    path = die(tmp_path, ended=False)
    sink = FakeSink()

    def unknown(_: str) -> bool:
        raise run_refused(NOT_FOUND)

    sink.has_ended = unknown  # type: ignore[method-assign]
    replayed(path, sink)
    assert [run.run_id for run in scan(path)] == ["run_0"]


def test_in_the_background_they_are_released_with_their_waiting_points(tmp_path: Path) -> None:
    for _ in range(6):
        die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.sinks[URI] = another_store()
    process.recover()
    assert len(journals(tmp_path)) == 6
    assert all(run.acknowledged == 0 for path in journals(tmp_path) for run in scan(path))


def test_forbidden_orphans_delay_no_others_of_their_server(tmp_path: Path) -> None:
    die(tmp_path, runs=2)
    for _ in range(8):
        die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.sinks[URI] = another_store("run_1", error=not_allowed("HTTP 403"))
    process.recover()
    assert len(process.sinks[URI].points("run_1")) == 30
    assert len(journals(tmp_path)) == 9


def test_a_month_old_orphan_is_tried_once_more(tmp_path: Path) -> None:
    let_a_month_pass(die(tmp_path))
    process = RecoveringProcess(tmp_path)
    process.recover()
    assert len(process.sinks[URI].points("run_0")) == 30


@pytest.mark.parametrize(
    "sink", [lambda: FakeSink(down=True), another_store, lambda: another_store(error=not_allowed("HTTP 403"))]
)
def test_a_month_old_orphan_that_no_server_takes_is_deleted_with_one_line(
    sink: Callable[[], FakeSink], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    let_a_month_pass(die(tmp_path, runs=2))
    process = RecoveringProcess(tmp_path)
    process.sinks[URI] = sink()
    process.recover()
    assert not list(tmp_path.iterdir())
    said = [record for record in caplog.records if "giving up" in record.message]
    assert [record.levelname for record in said] == ["INFO"]
    assert "60 points" in said[0].message


@pytest.mark.parametrize("error", [ConnectionError("reset"), run_refused(NOT_FOUND), not_allowed("HTTP 401")])
def test_failures_of_orphans_are_not_reported_as_the_programs(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    die(tmp_path, runs=2)
    process = RecoveringProcess(tmp_path)
    process.sinks[URI] = another_store("live", error=error)
    process.thread.start()
    process.deliver_until(lambda: bool(process.sinks) and URI in process.senders)
    sender = process.senders[URI]
    while sender.send_next():
        pass
    sender.log_messages()
    live = RunQueue("live", STARTED_AT, 10)
    sender.append(live, [Point("system/x", 1.0, STARTED_AT)])
    sender.expedite()
    assert sender.send_next(), "it must not wait until the server has had its rest"
    assert len(process.sinks[URI].points("live")) == 1
    counts = sender.counts()
    assert (counts.delivered, counts.pending, counts.dropped, counts.last_error) == (1, 0, 0, None)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    process.sinks[URI] = FakeSink()
    sender._connection._sink = process.sinks[URI]
    process.clock.move(100)
    process.deliver_until(lambda: not process.thread.is_alive())
