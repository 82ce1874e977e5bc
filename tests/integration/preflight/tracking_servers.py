"""Real tracking servers: databases from a wheel, basic authentication, and a proxy."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import forks
import psutil
import pytest
from chaos_server import HOST, SERVER, free_port
from databases import Postgres

_USER, _PASSWORD = "admin", "s3cr3t-p4ssword"
_STARTS_WITHIN_SECONDS = (
    240  # 10 s on an idle machine; making PostgreSQL's tables on a busy one takes its time
)
_ENVIRON = {
    "MLFLOW_RUN_CONTEXT_PROVIDER": "none",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def running_server(store: str, directory: Path, *arguments: str, **environ: str) -> Iterator[str]:
    """Runs `mlflow server` on a store for the duration of a ``with`` block; yields its URL."""
    port = free_port()
    command = [
        SERVER,
        "server",
        "--workers",
        "1",
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    with (directory / "log").open("ab") as output:
        server = forks.popen(
            [*command, "--backend-store-uri", store, *arguments],
            forks.SERVER,
            env={**os.environ, **_ENVIRON, **environ},
            cwd=directory,
            stdout=output,
            stderr=output,
        )
    try:
        ends = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not _answers(port):
            if time.monotonic() > ends or server.poll() is not None:
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.1)
        yield f"http://{HOST}:{port}"
    finally:
        workers = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        for process in workers:
            process.kill()
        server.kill()
        server.wait()
        psutil.wait_procs(workers, timeout=10)


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="session")
def postgres(postgres_server: Postgres) -> str:
    """The URI of an empty PostgreSQL database."""
    return postgres_server.new().uri


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """A server on sqlite without credentials."""
    directory = tmp_path_factory.mktemp("sqlite-server")
    path = shutil.copy(empty_database, directory / "runs.db")
    with running_server(f"sqlite:///{path}", directory) as url:
        yield url


@pytest.fixture(scope="session")
def guarded_server(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[str]:
    """A server on PostgreSQL with basic authentication; its users are in sqlite."""
    directory = tmp_path_factory.mktemp("guarded-server")
    settings = directory / "auth.ini"
    settings.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{directory}/users.db\n"
        f"admin_username = {_USER}\n"
        f"admin_password = {_PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    secret = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test", "MLFLOW_AUTH_CONFIG_PATH": str(settings)}
    with running_server(postgres, directory, "--app-name", "basic-auth", **secret) as url:
        yield url


@pytest.fixture
def as_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes MLflow send the right user and password."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", _USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", _PASSWORD)


@pytest.fixture
def guarded_uri(guarded_server: str) -> str:
    """The URL of the guarded server with user and password."""
    return guarded_server.replace("http://", f"http://{_USER}:{_PASSWORD}@")
