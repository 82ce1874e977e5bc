"""`mlflow-sysmetrics watch` on real stores: a database, and a server that goes away and comes back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from programs import Store

from mlflow_sysmetrics import LocalServer
from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.cli.tracked_runs import TrackingServer
from mlflow_sysmetrics.live import remote
from mlflow_sysmetrics.live.board import Board
from mlflow_sysmetrics.live.remote import RemoteRuns
from mlflow_sysmetrics.live.requests import Requests

GPU, CPU = "system/node_0/gpu_0_utilization_percentage", "system/node_0/cpu_utilization_percentage"
NAME = "\x1b[2J\u202eships 名前"


def logged(store: Store) -> str:
    """Logs a run of five minutes that goes on, and returns its id."""
    from mlflow.entities import Metric

    began = time.time_ns() // 1_000_000 - 300_000
    run = store.client.create_run("0", start_time=began, run_name=NAME)
    points = [
        Metric(key, float(second % 100), began + second * 1000, second)
        for second in range(0, 300, 10)
        for key in (GPU, CPU)
    ]
    store.client.log_batch(run.info.run_id, metrics=points)
    return str(run.info.run_id)


def watch(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["watch", *arguments], env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    return str(done.output)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PACE_SECONDS", 0.0)


def check(uri: str, run_id: str) -> None:
    shown = watch(run_id, "--tracking-uri", uri).splitlines()
    assert shown[0].startswith("\\x1b[2J\\u202eships 名前  RUNNING, 5 min")
    assert "node_0  GPU 0" in shown
    assert any(line.startswith(" utilization") and len(set(line)) > 15 for line in shown)  # a curve
    table = watch("--experiment", "Default", "--tracking-uri", uri)
    assert "\\x1b[2J\\u202eships" in table
    assert "90 %" in table
    assert "has no run" in watch("0" * 32, "--tracking-uri", uri, code=3)
    assert "has no experiment" in watch("--experiment", "ships", "--tracking-uri", uri, code=1)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_runs_of_a_database(store: Store) -> None:
    check(store.uri, logged(store))


@pytest.mark.usefixtures("forked")
def test_runs_of_a_server_that_goes_away(tmp_path: Path) -> None:
    board = Board("there")
    with LocalServer(directory=tmp_path / "server") as server:
        uri = server.url
        run_id = logged(Store(uri))
        check(uri, run_id)
        source = RemoteRuns(Requests(TrackingServer(uri)), run_id)
        source.begin(board)
        board.chosen = run_id
        while not source.is_filled(board):
            source.step(board)
        points: Any = board.runs[run_id].series[GPU].points
        assert len(points) == 30
        assert board.trouble == ""
    source._due.clear()
    source.step(board)
    assert board.trouble.startswith("no answer from the server: ")
    assert len(board.runs[run_id].series[GPU].points) == 30
    assert "curl" in watch(run_id, "--tracking-uri", uri, code=4)
    assert "curl" in watch("--experiment", "Default", "--tracking-uri", uri, code=4)
