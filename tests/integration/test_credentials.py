"""Credentials of the environment go to the server that the user chose, not to one that a journal names."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from programs import Program

from gone import of_a_process_that_is_gone
from mlflow_sysmetrics.cli.dead_runs import DeadRunSearch
from mlflow_sysmetrics.cli.orphan_delivery import OrphanDelivery
from mlflow_sysmetrics.cli.spooled_journals import read_journals
from mlflow_sysmetrics.daemon.journal.journal import Journal

RUN = "f" * 32
STARTED_AT = 1_700_000_000_000
INFO: dict[str, object] = {"run_id": RUN, "experiment_id": "0", "status": "RUNNING", "start_time": STARTED_AT}
INFO |= {"lifecycle_stage": "active", "run_uuid": RUN}
TOKEN = {"MLFLOW_TRACKING_TOKEN": "hunter2"}
ENVIRON = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1", "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.2"}


class Listener(ThreadingHTTPServer):
    """A tracking server that accepts everything and remembers the credentials of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.credentials: list[str | None] = []  # of each request
        self.refuses = False


class Handler(BaseHTTPRequestHandler):
    """Answers queries with one run, and writes with the empty object."""

    server: Listener

    def do_GET(self) -> None:
        """Answers any method."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.credentials.append(self.headers.get("Authorization") or self.headers.get("X-Plugin"))
        answer: dict[str, object] = {} if self.command == "POST" else {"run": {"info": INFO, "data": {}}}
        body = json.dumps(answer).encode()
        self.send_response(401 if self.server.refuses else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


chosen = listener  # a second one: the server that the user chose


@pytest.fixture
def orphan(listener: Listener, tmp_path: Path) -> Path:
    """The journal of a process that has exited; it names the listener."""
    journal = Journal.create(tmp_path / "spool", 10**8)
    number = journal.register(RUN, listener.url, STARTED_AT)
    journal.append(number, 0, STARTED_AT, {"system/level": 1.0})
    journal.close(delete=False)
    return of_a_process_that_is_gone(journal.path)


def test_a_program_sends_an_orphans_points_without_credentials_and_its_own_with_them(
    program: Program, listener: Listener, chosen: Listener, orphan: Path
) -> None:
    code = f"""
        run = mlflow_sysmetrics.attach("{RUN}", started_at=1)
        ends = time.monotonic() + 30
        while b'"a":1' not in open({str(orphan)!r}, "rb").read() and time.monotonic() < ends:
            time.sleep(0.05)
        run.detach()
    """
    program(chosen.url, code, MLFLOW_SYSMETRICS_SPOOL_DIR=str(orphan.parent), **TOKEN, **ENVIRON)
    assert set(listener.credentials) == {None}
    assert set(chosen.credentials) == {"Bearer hunter2"}


def test_a_server_that_the_program_attaches_to_gets_credentials_even_if_a_journal_names_it(
    program: Program, listener: Listener, chosen: Listener, orphan: Path
) -> None:
    code = f"""
        mlflow_sysmetrics.attach("{RUN}", started_at=1, tracking_uri="{listener.url}").detach()
    """
    program(chosen.url, code, MLFLOW_SYSMETRICS_SPOOL_DIR=str(orphan.parent), **TOKEN, **ENVIRON)
    assert set(listener.credentials) == {"Bearer hunter2"}


def headers_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes MLflow add a header to each request, as a plugin does."""
    from mlflow.tracking.request_header import registry

    class Provider:
        def in_context(self) -> bool:
            return True

        def request_headers(self) -> dict[str, str]:
            return {"X-Plugin": "secret"}

    found = registry._request_header_provider_registry
    monkeypatch.setattr(found, "_registry", [*found._registry, Provider()])


@pytest.mark.parametrize(
    "variables",
    [
        TOKEN,
        {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "hunter2"},
        {"MLFLOW_TRACKING_AUTH": "some-plugin"},
        {"MLFLOW_TRACKING_AWS_SIGV4": "true"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_a_command_sends_no_credentials_to_a_server_that_was_not_chosen(
    variables: dict[str, str], listener: Listener, orphan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers_of_a_plugin(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = OrphanDelivery(f"{listener.url}0").deliver(orphan)
    assert outcome is not None
    assert outcome.delivered == 1
    assert set(listener.credentials) == {None}


def test_a_command_sends_credentials_to_the_chosen_server_under_any_path(
    listener: Listener, orphan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    OrphanDelivery(f"{listener.url}/elsewhere").deliver(orphan)
    assert set(listener.credentials) == {"Bearer hunter2"}


def test_a_server_that_refuses_an_anonymous_request_is_named_with_the_reason(
    listener: Listener, orphan: Path
) -> None:
    listener.refuses = True
    outcome = OrphanDelivery(None, wait_seconds=0).deliver(orphan)
    assert outcome is not None
    assert "HTTP 401" in outcome.faults[0]
    assert "are sent only to the server of MLFLOW_TRACKING_URI" in outcome.faults[0]


def test_the_search_for_dead_runs_sends_no_credentials_and_no_headers_of_plugins(
    listener: Listener, orphan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers_of_a_plugin(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    silent_since = time.time() - 3600  # a process that wrote recently does not count as dead
    os.utime(orphan, (silent_since, silent_since))
    (dead,) = DeadRunSearch(None, older_than=600).dead_runs(list(read_journals(orphan.parent)))
    assert dead.run.run_id == RUN
    assert set(listener.credentials) == {None}
