"""The daemon assembled: real threads, a fake tracking server, fake collectors."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import LEVEL, STARTED_AT, FakeSink, Scripted, run_refused, scripted
from mlflow_sysmetrics.daemon import Attachment
from mlflow_sysmetrics.daemon import daemon as daemon_module
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.runtime import backoff
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.settings import Settings
from stalls import Stalls
from watching import LASTING, LONG_SECONDS, eventually

FAST = Settings(
    sampling_interval=0.1, samples_before_logging=1, send_interval=0.1, flush_timeout=LONG_SECONDS
)


@pytest.fixture(autouse=True)
def _an_end_waits_for_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the last wait long enough for a busy machine; a test of a hanging sampler sets its own."""
    monkeypatch.setattr(daemon_module, "_LAST_SAMPLE_SECONDS", LONG_SECONDS)


@pytest.fixture
def sinks() -> dict[str, FakeSink]:
    return {}


@pytest.fixture
def daemon(sinks: dict[str, FakeSink]) -> Daemon:
    def open_sink(uri: str) -> FakeSink:
        return sinks.setdefault(uri, FakeSink())

    return Daemon(FAST, collectors=[scripted(level=1, share=2, total=3)], open_sink=open_sink)


SLOW = Settings(sampling_interval=60, samples_before_logging=10, send_interval=600)


def levels(sink: FakeSink, run_id: str = "run") -> int:
    return sum(point.key.endswith(LEVEL.name) for point in sink.points(run_id))


def ours() -> list[threading.Thread]:
    """Returns our permanent threads, those of earlier tests included; our other threads end by themselves."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(LASTING)]


def test_all_points_are_delivered_when_detach_returns(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    assert daemon.detach(series, None)
    assert next(point.key for point in sinks["uri"].points("run")) == f"system/{LEVEL.name}"
    assert daemon.status().points_pending == 0
    assert daemon.status().points_delivered == len(sinks["uri"].points("run"))


def test_attaching_twice_samples_once_until_both_detach(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    first = daemon.attach("run", "uri", FAST, started_at=STARTED_AT, holder=1)
    second = daemon.attach("run", "uri", FAST, started_at=STARTED_AT, holder=2)
    assert second is first
    assert daemon.detach(first, None, holder=1)
    assert daemon.status().attached == ("run",)
    assert daemon.detach(second, None, holder=2)
    assert daemon.status().attached == ()
    keys = [(point.key, point.timestamp) for point in sinks["uri"].points("run")]
    assert len(keys) == len(set(keys))


def test_the_same_run_id_on_two_servers_is_two_runs(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    all_series = [daemon.attach("run", uri, FAST, started_at=STARTED_AT) for uri in ("a", "b")]
    for series in all_series:
        assert daemon.detach(series, None)
    assert sinks["a"].points("run")
    assert sinks["b"].points("run")


def test_a_dead_server_does_not_delay_a_good_one(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    sinks["dead"] = FakeSink(down=True)
    daemon.attach("lost", "dead", FAST, started_at=STARTED_AT)
    daemon.attach("kept", "good", FAST, started_at=STARTED_AT)
    eventually(lambda: daemon.status().last_error)
    assert not daemon.flush(0.2)
    eventually(lambda: sinks["good"].points("kept"))
    assert daemon.status().last_error == "connection refused"


def test_flush_delivers_the_partial_window_and_the_run_goes_on(
    daemon: Daemon, sinks: dict[str, FakeSink]
) -> None:
    slow = Settings(sampling_interval=60, samples_before_logging=10, send_interval=600)
    daemon.attach("run", "uri", slow, started_at=STARTED_AT)
    eventually(lambda: daemon.sampler.ticks == 1)
    assert daemon.flush(None)
    assert len([point for point in sinks["uri"].points("run") if point.key.endswith(LEVEL.name)]) == 2
    assert daemon.status().attached == ("run",)


def test_detach_with_timeout_zero_does_not_wait(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    sinks["uri"] = FakeSink(open=threading.Event())
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: daemon.sampler.ticks > 0)
    assert not daemon.detach(series, 0)
    assert not sinks["uri"].batches
    sinks["uri"].open.set()
    assert daemon.flush(None), "what was not waited for is not lost"
    assert levels(sinks["uri"]) >= 2


def test_a_run_detached_without_waiting_is_complete_after_a_flush(
    daemon: Daemon, sinks: dict[str, FakeSink]
) -> None:
    for n in range(20):
        series = daemon.attach(str(n), "uri", SLOW, started_at=STARTED_AT)
        eventually(lambda queue=series.channel.queue: bool(queue.appended))  # type: ignore[misc]
        daemon.detach(series, 0)
        assert daemon.flush(LONG_SECONDS)
        assert levels(sinks["uri"], str(n)) == 2


def test_detaching_again_returns_whether_all_is_delivered(
    daemon: Daemon, sinks: dict[str, FakeSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_SECONDS", 0.01)
    sinks["uri"] = FakeSink(down=True)
    attachment = Attachment(daemon, "run", "uri")
    attachment.begin(FAST, STARTED_AT)
    assert not attachment.detach(0.1)
    assert not attachment.detach(0.1)
    sinks["uri"].down = False
    assert attachment.detach(LONG_SECONDS)
    assert attachment.detach(0)


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_a_huge_timeout_is_accepted(daemon: Daemon, timeout: float) -> None:
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    assert daemon.flush(timeout)
    assert daemon.detach(series, timeout)


def test_a_negative_timeout_does_not_wait(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    sinks["uri"] = FakeSink(down=True)
    series = daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    eventually(lambda: series.channel.queue.appended)
    assert not daemon.flush(-1)
    assert not daemon.detach(series, -1)


def test_a_thousand_quick_ends_and_resumes_leave_no_backlog(
    daemon: Daemon, sinks: dict[str, FakeSink]
) -> None:
    for _ in range(1000):
        daemon.detach(daemon.attach("run", "uri", FAST, started_at=STARTED_AT), 0)
    assert daemon.flush(LONG_SECONDS)
    points = sinks["uri"].points("run")
    assert len({(point.key, point.timestamp) for point in points}) == len(points)


def test_there_are_three_threads_whatever_the_number_of_runs(daemon: Daemon) -> None:
    before = ours()
    all_series = [daemon.attach(str(n), "uri", FAST, started_at=STARTED_AT) for n in range(50)]
    for series in all_series:
        daemon.detach(series, None)
    # A disk that takes longer than a tenth of a second has one more thread look after the sampler.
    names = {thread.name for thread in ours() if thread not in before} - {"sysmetrics-watchdog"}
    assert sorted(names) == [
        "sysmetrics-journal",
        "sysmetrics-sampler",
        "sysmetrics-sender-0",
    ]


def test_an_unused_daemon_has_no_thread_and_reports_so(daemon: Daemon) -> None:
    before = ours()
    assert daemon.flush(None)
    assert ours() == before
    assert not daemon.status().running


def test_a_daemon_logs_two_lines_whatever_the_number_of_runs(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlflow_sysmetrics")
    others = {thread.ident for thread in ours()}  # threads of earlier tests may log as well
    for n in range(20):
        daemon.detach(daemon.attach(str(n), "uri", FAST, started_at=STARTED_AT), None)
    daemon.end()
    told = [record for record in caplog.records if record.thread not in others]
    assert [record.message.split()[:2] for record in told] == [
        ["Sampling", "started:"],
        ["Sampling", "ended"],
    ]


def test_the_end_ends_all_runs(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    for n in range(3):
        daemon.attach(str(n), "uri", FAST, started_at=STARTED_AT)
    daemon.end()
    assert daemon.status().attached == ()
    assert all(sinks["uri"].points(str(n)) for n in range(3))


def test_ending_in_an_outage_logs_what_waits_and_where(
    daemon: Daemon, sinks: dict[str, FakeSink], caplog: pytest.LogCaptureFixture
) -> None:
    sinks["uri"] = FakeSink(down=True)
    impatient = Settings(sampling_interval=0.1, samples_before_logging=1, flush_timeout=0.2)
    daemon.attach("run", "uri", impatient, started_at=STARTED_AT)
    eventually(lambda: daemon.sampler.ticks > 0)
    daemon.end()
    status = daemon.status()
    assert status.points_unsaved == 0
    assert f"{status.points_pending} points wait in {status.journal}; they are sent by" in caplog.text
    assert "are lost" not in caplog.text


def test_ending_in_an_outage_without_a_journal_logs_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        sampling_interval=0.1, samples_before_logging=1, send_interval=0.1, flush_timeout=0.2, spool_dir="off"
    )
    daemon = Daemon(settings, collectors=[scripted(level=1)], open_sink=lambda _: FakeSink(down=True))
    daemon.attach("run", "uri", settings, started_at=STARTED_AT)
    eventually(lambda: daemon.status().last_error)
    daemon.end()
    assert "could not be delivered in time and are lost: connection refused" in caplog.text
    assert "wait in" not in caplog.text


def test_ending_with_everything_delivered_leaves_no_journal(daemon: Daemon) -> None:
    daemon.attach("run", "uri", FAST, started_at=STARTED_AT)
    assert daemon.flush(LONG_SECONDS)
    path = Path(str(daemon.status().journal))
    assert path.exists()
    daemon.end()
    assert not list(path.parent.iterdir())


def test_a_rejected_run_does_not_stop_the_others(daemon: Daemon, sinks: dict[str, FakeSink]) -> None:
    sinks["uri"] = FakeSink(failures=[run_refused("deleted")])
    series = daemon.attach("gone", "uri", FAST, started_at=STARTED_AT)
    assert daemon.detach(series, None)
    assert daemon.status().points_dropped > 0
    other = daemon.attach("other", "uri", FAST, started_at=STARTED_AT)
    assert daemon.detach(other, None)
    assert sinks["uri"].points("other")


@pytest.mark.heavy
def test_a_hanging_collector_costs_one_flush_timeout_whatever_the_number_of_runs() -> None:
    released = threading.Event()

    class Hanging(Scripted):
        def collect(self, now: float) -> Iterator[Sample]:
            released.wait(LONG_SECONDS)
            yield LEVEL.sample(now)

    impatient = Settings(flush_timeout=0.2)
    daemon = Daemon(impatient, collectors=[Hanging], open_sink=lambda _: FakeSink())
    with Stalls() as stalls:
        began = time.monotonic()
        for n in range(20):
            assert not daemon.detach(daemon.attach(str(n), "uri", impatient, started_at=STARTED_AT), None)
        took = time.monotonic() - began - stalls.seconds
    assert took < 2
    released.set()
    assert daemon.flush(LONG_SECONDS)


@pytest.mark.heavy
def test_idle_threads_do_not_wake(daemon: Daemon) -> None:
    daemon.detach(daemon.attach("run", "uri", FAST, started_at=STARTED_AT), None)
    ticks = daemon.sampler.ticks
    time.sleep(0.25)
    assert daemon.sampler.ticks == ticks


def test_an_excluded_family_is_not_opened() -> None:
    collector = scripted(level=1)
    settings = Settings(collectors=frozenset())
    daemon = Daemon(settings, collectors=[collector], open_sink=lambda _: FakeSink())
    daemon.detach(daemon.attach("run", "uri", settings, started_at=STARTED_AT), None)
    assert collector.built == 0
    assert daemon.status().collectors == {}


@pytest.mark.heavy
def test_runs_that_come_and_go_leave_nothing_behind(daemon: Daemon) -> None:
    for n in range(300):
        daemon.detach(daemon.attach(str(n), "uri", FAST, started_at=STARTED_AT), None)
    (sender,) = daemon._senders.all()
    assert not list(sender._schedule)
    assert not daemon.attachments._series
    assert not daemon.sampler._series
    eventually(lambda: not daemon.sampler._windows)  # the last thing a tick does


def test_a_store_in_the_working_directory_stays_where_it_was_when_the_run_was_attached(
    daemon: Daemon, sinks: dict[str, FakeSink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = daemon.attach("run", "sqlite:///runs.db", FAST, started_at=STARTED_AT)
    absolute = f"sqlite:///{tmp_path}/runs.db"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert daemon.attach("run", absolute, FAST, started_at=STARTED_AT) is series
    daemon.detach(series, None)
    assert daemon.detach(series, None)
    assert list(sinks) == [absolute]


def test_a_flush_timeout_of_zero_is_logged_as_the_reason_why_points_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = replace(SLOW, flush_timeout=0)
    answers = threading.Event()
    sink = FakeSink(open=answers)
    daemon = Daemon(settings, collectors=[scripted(level=1)], open_sink=lambda _: sink)
    daemon.attach("run", "uri", settings, started_at=STARTED_AT)
    daemon.end()
    answers.set()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().endswith(": a flush timeout of 0 does not wait.")
