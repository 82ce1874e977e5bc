"""The sink of a tracking server: steps, states and missing stores. Real stores are in tests/integration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from fakes import FakeSink, unreachable
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sink import Connection, RunSink, Sink, open_sink
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.runs import Metric, RunState
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://server:5000", "http://server:5000"),
        ("http://user:secret@server:5000/prefix", "http://server:5000/prefix"),
        ("postgresql://user:sec@ret/word@server/db?password=secret", "postgresql://server/db"),
        ("http://user:what?secret@server/", "http://server/"),
        ("http://user:hash#secret@server/", "http://server/"),
        ("sqlite:////home/me@work/runs.db", "sqlite:////home/me@work/runs.db"),
        ("http://[::1", "http://[::1"),
        ("http://server:5000/teams/me@corp/ml#x", "http://corp/ml"),  # also the path may be of a password
        ("postgresql://user:1234/5@server/db", "postgresql://server/db"),
        ("sqlite:///runs.db", "sqlite:///runs.db"),
        ("databricks", "databricks"),
    ],
)
def test_secrets_are_not_shown(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


def test_secrets_in_the_words_of_others_are_not_shown_either() -> None:
    uri = "foo://me:hunter2@server/x"
    text = f"No store for {uri!r}; did you mean http://me:hun#ter2@server?"
    assert without_secrets(text, uri) == "No store for 'foo://server/x'; did you mean http://server?"


class FakeRuns:
    """The runs of a server; remembers what was written."""

    def __init__(self, status: str = "RUNNING", started_at: int | None = 7) -> None:
        self.found = RunState(status, started_at)
        self.written: list[tuple[str, list[Metric], dict[str, str]]] = []

    def state(self, run_id: str) -> RunState:
        return self.found

    def log_batch(self, run_id: str, metrics: Iterable[Metric], tags: Mapping[str, str]) -> None:
        self.written.append((run_id, list(metrics), dict(tags)))


def test_points_are_written_with_their_steps() -> None:
    found = FakeRuns()
    RunSink(found).send("run", [Point("a", 1.0, 5), Point("b", 2.0, 6)], [3, 4], {"x": "y"})
    assert found.written == [("run", [Metric("a", 1.0, 5, 3), Metric("b", 2.0, 6, 4)], {"x": "y"})]


@pytest.mark.parametrize(
    ("status", "ended"), [("RUNNING", False), ("SCHEDULED", False), ("FINISHED", True), ("KILLED", True)]
)
def test_a_run_has_ended_unless_it_runs_or_will_run(status: str, *, ended: bool) -> None:
    assert RunSink(FakeRuns(status)).has_ended("run") is ended


def test_a_run_without_a_start_time_is_asked_for_again() -> None:
    assert RunSink(FakeRuns()).started_at("run") == 7
    with pytest.raises(Fault, match="no start time") as raised:
        RunSink(FakeRuns(started_at=None)).started_at("run")
    assert not raised.value.refuses_run


def test_a_store_on_an_unmounted_disk_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "unmounted" / "mlflow.db"
    with pytest.raises(Fault, match="does not exist"):
        open_sink(f"sqlite:///{path}")
    assert not path.parent.exists()


def test_a_client_that_cannot_be_made_may_be_made_later_and_its_error_is_masked() -> None:
    uri = "plugin://me:hunter2!@server"
    found: list[Exception] = [RuntimeError("bad password hunter2! for plugin://me:hunter2!@server")]

    def opened(_: str) -> Sink:
        if found:
            raise found.pop()
        return FakeSink()

    connection = Connection(uri, opened)
    queue = RunQueue("run", 0, 10.0)
    with pytest.raises(Fault) as raised:
        connection.send(queue, [Point("a", 1.0, 5)], {})
    assert raised.value.cause is Cause.DOWN
    assert (
        str(raised.value)
        == "cannot create a client for plugin://server: bad password *** for plugin://server"
    )
    assert raised.value.__context__ is None
    connection.send(queue, [Point("a", 1.0, 5)], {})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (unreachable("HTTP 503"), "HTTP 503"),
        (KeyError("http://me:hunter2@server/x"), "KeyError: 'http://server/x'"),
    ],
)
def test_the_reason_of_a_failure_is_masked(error: Exception, reason: str) -> None:
    assert Connection("http://me:hunter2@server", lambda _: FakeSink()).reason(error) == reason
