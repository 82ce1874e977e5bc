"""The database of a tracking server goes down and returns while runs send metrics."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_check import assert_all_on_server
from chaos_server import TrackingServer
from chaos_starter import Starter, journals
from databases import Postgres

from mlflow_sysmetrics import LocalServer

pytest_plugins = ["chaos_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are forked here")

RUNS = 20
TRAINING = """
    runs = os.environ["RUNS"].split(",")
    attachments = [mlflow_sysmetrics.attach(run, tracking_uri=URL) for run in runs]
    tell("attached")
    await_word("away")
    deadline = time.monotonic() + 60
    while mlflow_sysmetrics.status().last_error is None and time.monotonic() < deadline:
        time.sleep(0.05)
    tell("noticed" if mlflow_sysmetrics.status().last_error else "nothing")
    await_word("finish")
    assert mlflow_sysmetrics.flush(120), mlflow_sysmetrics.status()
    for attachment in attachments:
        assert attachment.detach(120), mlflow_sysmetrics.status()
    status = mlflow_sysmetrics.status()
    print(status.points_pending, status.points_dropped, status.last_error)
"""


@pytest.fixture
def local(postgres_server: Postgres, forked: None, tmp_path: Path) -> Iterator[TrackingServer]:
    """A `LocalServer` on PostgreSQL, wrapped as a server of the chaos suite."""
    database = postgres_server.new()
    with LocalServer(database.uri, directory=tmp_path / "server") as running:
        seen = TrackingServer(database, running.log_path)
        seen.port = int(running.url.rpartition(":")[2])
        yield seen


def test_a_database_outage_loses_no_point_of_twenty_runs(
    local: TrackingServer, postgres_server: Postgres, start: Starter, spool: Path
) -> None:
    """The server is not restarted: it reconnects to its database."""
    runs = ",".join(local.new_run() for _ in range(RUNS))
    program = start(TRAINING, RUNS=runs, CHAOS_URL=local.url)
    program.await_word("attached")
    time.sleep(0.5)
    with postgres_server.stopped():
        program.tell("away")
        program.await_word("noticed")
        time.sleep(1)
    program.tell("finish")
    assert program.wait() == 0, program.stderr
    assert program.stdout.split()[-3:] == ["0", "0", "None"]
    assert assert_all_on_server(local, start.sides) > 0
    assert journals(spool) == []
