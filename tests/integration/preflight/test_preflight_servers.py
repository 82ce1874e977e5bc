"""Preflights of real servers and databases succeed, or fail with the right message."""

from __future__ import annotations

import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from chaos_proxy import Proxy
from chaos_server import free_port
from mlflow_double import RunPreflight

from mlflow_sysmetrics.errors import (
    AuthenticationError,
    ExperimentError,
    RunVerificationError,
    ServerUnreachableError,
    TrackingURIError,
)
from mlflow_sysmetrics.mlflow_api import fluent_state

pytest_plugins = ["preflight_fixtures", "tracking_servers"]
# What MLflow's stores and their libraries warn of when a database is opened in this process is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def read(uri: str, run_id: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlflow.MlflowClient(uri).get_run(run_id)


@pytest.fixture
def sqlite_uri(tmp_path: Path, empty_database: Path) -> str:
    """A database with MLflow's tables."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'runs.db')}"


def test_all_steps_pass_on_a_server_with_sqlite(sqlite_server: str, run_preflight: RunPreflight) -> None:
    result = run_preflight(
        "ships", "first", tracking_uri=sqlite_server, params={"lr": 0.1}, check_artifacts=True
    )
    run = read(sqlite_server, result.run_id)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "first")
    assert (run.data.metrics, run.data.params) == ({"preflight/ok": 1.0}, {"lr": "0.1"})
    assert result.server_version == mlflow.__version__
    assert [one.error for one in result.attempts] == [None] * len(result.attempts)


@pytest.mark.usefixtures("as_admin")
def test_all_steps_pass_on_a_guarded_server_with_postgresql(
    guarded_server: str, run_preflight: RunPreflight
) -> None:
    result = run_preflight(tracking_uri=guarded_server, check_artifacts=True)
    assert read(guarded_server, result.run_id).info.status == "RUNNING"


def test_a_guarded_server_rejects_requests_without_credentials(
    guarded_server: str, run_preflight: RunPreflight
) -> None:
    with pytest.raises(AuthenticationError, match=r"HTTP 401.*This program sent no credentials") as raised:
        run_preflight(tracking_uri=guarded_server)
    assert raised.value.step == 2


def test_a_wrong_password_is_not_in_the_message(
    guarded_server: str, run_preflight: RunPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t-wrong")
    with pytest.raises(AuthenticationError) as raised:
        run_preflight(tracking_uri=guarded_server)
    assert "s3cr3t" not in str(raised.value)


def test_user_and_password_in_the_uri_work_too(
    guarded_server: str, guarded_uri: str, run_preflight: RunPreflight
) -> None:
    result = run_preflight(tracking_uri=guarded_uri)
    assert result.tracking_uri == guarded_server
    assert mlflow.get_tracking_uri() == guarded_uri


def test_postgresql_works_without_a_server(
    postgres: str, guarded_server: str, run_preflight: RunPreflight
) -> None:
    result = run_preflight(tracking_uri=postgres)
    assert guarded_server  # which has made the tables
    assert read(postgres, result.run_id).info.status == "RUNNING"


def test_a_postgresql_that_is_down_is_reported(run_preflight: RunPreflight) -> None:
    uri = f"postgresql+psycopg2://anna:s3cr3t@127.0.0.1:{free_port()}/runs"
    with pytest.raises(ServerUnreachableError, match="Connection refused") as raised:
        run_preflight(tracking_uri=uri, max_retries=2)
    assert "s3cr3t" not in str(raised.value)


def test_sqlite_works_without_a_server(sqlite_uri: str, run_preflight: RunPreflight) -> None:
    result = run_preflight(tracking_uri=sqlite_uri, check_artifacts=True)
    assert read(sqlite_uri, result.run_id).info.status == "RUNNING"
    assert result.server_version is None


def test_a_locked_database_is_retried(sqlite_uri: str, run_preflight: RunPreflight) -> None:
    path = sqlite_uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        def free(_wait: float) -> float:
            other.rollback() if other.in_transaction else None
            return 0.0

        result = run_preflight(tracking_uri=sqlite_uri, shortened=free)
    assert "locked" in str(result.attempts[0].error)


def test_a_file_that_is_not_a_database_is_rejected_at_once(
    tmp_path: Path, run_preflight: RunPreflight
) -> None:
    (tmp_path / "text.db").write_text("these are no tables, however long the text goes on" * 10)
    with pytest.raises(ServerUnreachableError, match="not a database") as raised:
        run_preflight(tracking_uri=f"sqlite:///{tmp_path}/text.db")
    assert len(raised.value.attempts) == 1


def test_a_directory_is_accepted_or_rejected_like_this_mlflow_does(
    tmp_path: Path, run_preflight: RunPreflight
) -> None:
    if fluent_state.refuses_directories():
        with pytest.raises(TrackingURIError, match="MLFLOW_ALLOW_FILE_STORE"):
            run_preflight(tracking_uri=str(tmp_path / "mlruns"))
    else:
        assert run_preflight(tracking_uri=str(tmp_path / "mlruns")).run_id


@pytest.fixture
def proxy(sqlite_server: str) -> Iterator[Proxy]:
    """A proxy in front of a real server."""
    running = Proxy(int(sqlite_server.rpartition(":")[2]))
    yield running
    running.close()


def test_a_real_server_has_one_run_after_a_lost_response(
    proxy: Proxy, sqlite_server: str, run_preflight: RunPreflight
) -> None:
    proxy.trouble("lose-answer", only="/api/2.0/mlflow/runs/create")

    def heal(_wait: float) -> float:
        proxy.trouble("none")
        return 0.0

    result = run_preflight("one-run", tracking_uri=proxy.url, shortened=heal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = mlflow.MlflowClient(sqlite_server).search_runs([result.experiment_id])
    assert [run.info.run_id for run in runs] == [result.run_id]


def test_a_real_server_has_a_failed_run_if_it_cannot_be_verified(
    proxy: Proxy, sqlite_server: str, run_preflight: RunPreflight
) -> None:
    proxy.trouble("500", only="/api/2.0/mlflow/runs/log-batch")
    with pytest.raises(RunVerificationError):
        run_preflight("failed-run", tracking_uri=proxy.url, max_retries=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = mlflow.MlflowClient(sqlite_server)
        experiment = client.get_experiment_by_name("failed-run")
        statuses = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    assert statuses == ["FAILED"]


def test_a_deleted_experiment_of_a_real_server_is_rejected(
    sqlite_server: str, run_preflight: RunPreflight
) -> None:
    client = mlflow.MlflowClient(sqlite_server)
    client.delete_experiment(client.create_experiment("sunk"))
    with pytest.raises(ExperimentError, match="is deleted"):
        run_preflight("sunk", tracking_uri=sqlite_server)


def test_databricks_is_reached_without_health(
    sqlite_server: str, run_preflight: RunPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow uses the same protocol for it; here an ordinary server stands in."""
    monkeypatch.setenv("DATABRICKS_HOST", sqlite_server)
    monkeypatch.setenv("DATABRICKS_TOKEN", "s3cr3t-token")
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", "false")
    result = run_preflight("ships", tracking_uri="databricks")
    assert read(sqlite_server, result.run_id).info.status == "RUNNING"
