"""Points of dead processes: delivered by the process that takes over their journal."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path

import pytest
from dead_processes import URI, RecoveringProcess, die, let_a_month_pass, replayed

from fakes import STARTED_AT, FakeSink, run_deleted
from mlflow_sysmetrics.daemon.journal import store_files
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.daemon.journal.recovery import Recovery, Replayed, replay
from mlflow_sysmetrics.daemon.journal.scan import scan
from mlflow_sysmetrics.daemon.journal.spool import claim, journals
from watching import LONG_SECONDS


def test_an_orphan_is_delivered_with_its_timestamps_and_steps_and_deleted(tmp_path: Path) -> None:
    sink = FakeSink()
    outcome = replayed(die(tmp_path, runs=2), sink)
    assert outcome == Replayed(60, 0, 0, ())
    assert [point.value for point in sink.points("run_1")][:2] == [0.0, 0.1]
    assert sink.batches[0].steps == [0] * 10 + [1] * 10 + [2] * 10
    assert not list(tmp_path.iterdir())


def test_only_what_was_not_acknowledged_is_delivered(tmp_path: Path) -> None:
    sink = FakeSink()
    replayed(die(tmp_path, acknowledged=15), sink)
    assert [point.value for point in sink.points("run_0")] == [1.5, 1.6, 1.7, 1.8, 1.9] + [
        2 + n / 10 for n in range(10)
    ]


def test_the_run_says_how_many_points_were_replayed(tmp_path: Path) -> None:
    sink = FakeSink()
    replayed(die(tmp_path, ticks=150), sink)
    tags = [batch.tags for batch in sink.batches if batch.tags]
    assert tags == [{"sysmetrics.replayed": "1500"}]


def test_an_undeliverable_orphan_stays(tmp_path: Path) -> None:
    path = die(tmp_path)
    outcome = replayed(path, FakeSink(down=True))
    assert outcome == Replayed(0, 0, 30, ("http://server:5000: connection refused",))
    assert replayed(path, FakeSink()).delivered == 30


def test_an_interrupted_replay_continues_where_it_was(tmp_path: Path) -> None:
    path = die(tmp_path, ticks=150)
    sink = FakeSink()
    send, calls = sink.send, []

    def breaks(*batch: object) -> None:
        calls.append(1)
        sink.down = len(calls) > 1
        send(*batch)  # type: ignore[arg-type]

    sink.send = breaks  # type: ignore[method-assign]
    assert replayed(path, sink).waiting == 500
    sink.send = send  # type: ignore[method-assign]
    sink.down = False
    assert replayed(path, sink).delivered == 500
    assert len(set(sink.points("run_0"))) == len(sink.points("run_0")) == 1500


def test_points_of_a_deleted_run_are_given_up(tmp_path: Path) -> None:
    outcome = replayed(die(tmp_path), FakeSink(failures=[run_deleted("deleted")]))
    assert outcome == Replayed(0, 30, 0, ())
    assert not list(tmp_path.iterdir())


def test_the_credentials_of_the_same_server_are_used(tmp_path: Path) -> None:
    journal = claim(die(tmp_path))
    assert journal is not None
    opened = []

    def open_sink(uri: str) -> FakeSink:
        opened.append(uri)
        return FakeSink()

    replay(journal, open_sink, tracking_uri="http://me:secret@server:5000")
    assert opened == ["http://me:secret@server:5000"]


def test_progress_adds_up_to_the_acknowledged_points(tmp_path: Path) -> None:
    journal = claim(die(tmp_path, runs=3, ticks=120))
    assert journal is not None
    steps: list[int] = []
    replay(journal, lambda _: FakeSink(), steps.append)
    assert sum(steps) == 3600
    assert len(steps) >= 6


@pytest.mark.parametrize(("running", "kept"), [(True, True), (False, False)])
def test_a_journal_of_an_undetached_run_is_kept_while_the_run_says_running(
    tmp_path: Path, *, running: bool, kept: bool
) -> None:
    path = die(tmp_path, ended=False)
    replayed(path, FakeSink(running={"run_0"} if running else set()))
    assert path.exists() is kept
    if kept:
        assert [(run.run_id, run.acknowledged >= run.appended) for run in scan(path)] == [("run_0", True)]


def test_a_kept_journal_is_deleted_after_a_month(tmp_path: Path) -> None:
    path = die(tmp_path, ended=False)
    sink = FakeSink(running={"run_0"})
    replayed(path, sink)
    replayed(path, sink)
    assert path.exists()
    let_a_month_pass(path)
    replayed(path, sink)
    assert not path.exists()


def test_all_orphans_are_delivered_in_the_background(tmp_path: Path) -> None:
    for _ in range(12):
        die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.recover()
    assert len(process.sinks[URI].points("run_0")) == 12 * 30
    assert process.most_claimed <= 4
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_delays_no_other(tmp_path: Path) -> None:
    for _ in range(20):
        die(tmp_path, uri="http://away")
    for _ in range(5):
        die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.sinks["http://away"] = FakeSink(down=True)
    process.thread.start()
    process.deliver_until(lambda: len(journals(tmp_path)) == 20)
    assert len(process.sinks[URI].points("run_0")) == 5 * 30
    assert process.thread.is_alive()
    process.sinks["http://away"].down = False
    process.clock.move(100)
    process.deliver_until(lambda: not process.thread.is_alive())
    assert len(process.sinks["http://away"].points("run_0")) == 20 * 30


def test_a_journal_with_a_living_owner_is_left_alone(tmp_path: Path) -> None:
    living = Journal.create(tmp_path, 10**6)
    living.append(living.register("run", URI, STARTED_AT), 0, STARTED_AT, {"system/x": 1.0})
    process = RecoveringProcess(tmp_path)
    process.recover()
    assert not process.senders
    living.close(delete=True)


def test_two_processes_that_recover_at_once_deliver_each_point_once(tmp_path: Path) -> None:
    for _ in range(12):
        die(tmp_path)
    first, second = RecoveringProcess(tmp_path), RecoveringProcess(tmp_path)
    first.thread.start()
    second.thread.start()
    first.deliver_until(lambda: not first.thread.is_alive())
    second.deliver_until(lambda: not second.thread.is_alive())
    sent = [len(process.open(URI).points("run_0")) for process in (first, second)]
    assert sum(sent) == 12 * 30


def test_a_directory_that_does_not_exist_has_no_orphans(tmp_path: Path) -> None:
    process = RecoveringProcess(tmp_path / "none")
    process.recover()
    assert not process.senders


def test_no_caller_waits_for_orphans(tmp_path: Path) -> None:
    die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.sinks[URI] = FakeSink(down=True)
    process.thread.start()
    process.deliver_until(lambda: bool(process.senders))
    sender = process.senders[URI]
    assert sender.expedite() == {}
    assert sender.counts().pending == 0
    process.sinks[URI].down = False
    process.clock.move(100)
    process.deliver_until(lambda: not process.thread.is_alive())


def test_recovery_draws_nothing_from_a_seeded_generator(tmp_path: Path) -> None:
    journal = claim(die(tmp_path / "one"))
    assert journal is not None
    before = random.getstate()
    replay(journal, lambda _: FakeSink(down=True), wait_seconds=0)  # fails and backs off
    for _ in range(9):
        die(tmp_path / "nine", acknowledged=30)  # nothing waits in these; they are deleted
    Recovery(lambda: tmp_path / "nine", lambda *_: None, lambda _: FakeSink(), list).run()
    assert not list((tmp_path / "nine").iterdir())
    assert random.getstate() == before


def test_deleted_stores_take_no_slot_and_no_sender(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    for number in range(20):
        die(tmp_path, uri=f"sqlite:///{tmp_path}/gone/{number}.db")
    die(tmp_path)
    process = RecoveringProcess(tmp_path)
    process.recover()
    assert list(process.senders) == [URI]
    assert len(journals(tmp_path)) == 20
    assert ["does not exist" in record.message for record in caplog.records] == [True]


def test_a_store_on_a_disk_that_does_not_answer_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(store_files, "check_store", lambda _: answers.wait(LONG_SECONDS))
    monkeypatch.setattr(store_files, "_TIMEOUT_SECONDS", 0.05)
    for number in range(20):
        die(tmp_path, uri=f"sqlite:////away/{number}.db")
    process = RecoveringProcess(tmp_path)
    process.recover()
    answers.set()
    assert not process.senders
    assert len(journals(tmp_path)) == 20


@pytest.mark.heavy
def test_servers_that_are_away_yield_to_those_that_answer(tmp_path: Path) -> None:
    process = RecoveringProcess(tmp_path)
    away = [f"http://away-{number}" for number in range(40)]
    good = [f"http://good-{number}" for number in range(5)]
    process.sinks = {uri: FakeSink(down=uri in away) for uri in away + good}
    for uri in away + good:
        die(tmp_path, uri=uri)
    process.thread.start()

    def delivered(uris: list[str]) -> bool:
        process.clock.move(10)
        return all(process.sinks[uri].points("run_0") for uri in uris)

    process.deliver_until(lambda: delivered(good))
    for sink in process.sinks.values():
        sink.down = False
    process.deliver_until(lambda: delivered(away) and not process.thread.is_alive())
    assert not list(tmp_path.iterdir())
    assert all(len(sink.points("run_0")) == 30 for sink in process.sinks.values())
