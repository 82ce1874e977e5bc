"""Runs the commands of the compose file with their environments on a real PostgreSQL, without Docker.

Only places differ: a socket is the database's address, a directory the volume, a free port the container's.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import forks
import mlflow
import pytest
from compose_files import DEPLOY, FILLED_IN, compose, environment_of, health_check_of_image, runnable
from server_calls import call, new_run
from server_database import PASSWORD, Database

from mlflow_sysmetrics.server.ports import free_port
from mlflow_sysmetrics.server.readiness import ServerAddress, wait_until_ready
from mlflow_sysmetrics.server.supervised import SupervisedProcess

pytest_plugins = ["server_fixtures"]
pytestmark = [
    # What MLflow's client and its libraries warn of in this process is not ours.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("forked"),
    pytest.mark.skipif(int(mlflow.__version__.partition(".")[0]) < 3, reason="the files are for MLflow 3"),
]
ENV_FILE = {**FILLED_IN, "POSTGRES_PASSWORD": PASSWORD}
HOST, SECONDS = "127.0.0.1", 240.0
ADMIN = {
    "Authorization": "Basic "
    + base64.b64encode(f"admin:{FILLED_IN['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()).decode()
}


@dataclass
class Deployment:
    """The services of the compose file, as far as they are MLflow's.

    Attributes:
        database: that of the service "postgres".
        volume: that of the artifacts.
        directory: of logs and changed files.
        port: what the server listens on in place of 5000.
    """

    database: Database
    volume: Path
    directory: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def argv(self, name: str) -> list[str]:
        return [self._here(word) for word in runnable(compose(ENV_FILE)["services"][name]["command"])]

    def environ(self, name: str) -> dict[str, str]:
        found = environment_of(compose(ENV_FILE)["services"][name], ENV_FILE)
        users = self.directory / "basic_auth.ini"
        users.write_text(self._here((DEPLOY / "basic_auth.ini").read_text()))
        moved = {key: self._here(value) for key, value in found.items()}
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "HOME") if key in os.environ}
        return {**moved, **kept, "MLFLOW_HOST": HOST, "MLFLOW_PORT": str(self.port)}

    def migrate(self) -> None:
        """Runs the job that creates the tables."""
        here = {"env": self.environ("migrate"), "cwd": self.directory}
        forks.run(self.argv("migrate")[1:], forks.SERVER, timeout=SECONDS, check=True, **here)

    @contextmanager
    def server(self, name: str, user: tuple[str, str] | None = None) -> Iterator[SupervisedProcess]:
        """Runs a server for a block, once it responds under the name that other containers use."""
        log = self.directory / "log"
        process = SupervisedProcess(self.argv(name), self.environ(name), self.directory, log)
        try:
            address = ServerAddress(host=HOST, port=self.port, host_header="mlflow:5000", user=user)
            wait_until_ready(process, address, [], SECONDS)
            yield process
        finally:
            process.stop()

    def _here(self, text: str) -> str:
        moved = text.replace("//postgres:5432/", f"//{self.database.place}")
        moved = moved.replace("/etc/mlflow/basic_auth.ini", str(self.directory / "basic_auth.ini"))
        return moved.replace("/mlflow/artifacts", str(self.volume))


@pytest.fixture(scope="module")
def migrated(running_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database with the tables of the job; to be restored before each use."""
    directory = tmp_path_factory.mktemp("migration")
    running_database.empty()
    Deployment(running_database, directory, directory, free_port(HOST)).migrate()
    running_database.keep()
    return running_database


@pytest.fixture
def deployment(migrated: Database, tmp_path: Path) -> Deployment:
    """Everything but the server: a database with its tables, and a volume."""
    migrated.restore()
    made = Deployment(migrated, tmp_path / "volume", tmp_path, free_port(HOST))
    made.volume.mkdir()
    return made


def test_the_job_creates_the_tables_once(deployment: Deployment) -> None:
    assert int(deployment.database.ask("SELECT count(*) FROM experiments;")) == 0
    deployment.migrate()


def test_the_server_does_what_other_services_rely_on(deployment: Deployment, tmp_path: Path) -> None:
    """One test, because a start takes ten seconds."""
    client = mlflow.MlflowClient(deployment.url)
    with deployment.server("mlflow"):
        for name, status in (
            ("mlflow:5000", 200),
            ("mlflow", 200),
            ("localhost:5001", 200),
            ("127.0.0.1:5001", 200),
            ("ml.example.org", 200),
            ("ml.example.org:5001", 200),
            ("evil.example", 403),
            ("172.18.0.7:5000", 403),
        ):
            found = call(deployment.url, "GET", "experiments/get?experiment_id=0", Host=name)
            assert (name, found.status) == (name, status)
            assert call(deployment.url, "GET", "/health", Host=name).status == 200
        for origin, status in (
            ("https://ml.example.org", 200),
            ("http://ml.example.org:5001", 200),
            ("http://evil.example", 403),
        ):
            body = {"experiment_ids": ["0"]}
            found = call(deployment.url, "POST", "runs/search", body, Host="mlflow:5000", Origin=origin)
            assert (origin, found.status) == (origin, status)
        run_id = new_run(deployment.url)
        client.log_text(run_id, "1 2 3", "weights.txt")
        assert [one.read_text() for one in deployment.volume.rglob("weights.txt")] == ["1 2 3"]
        healthy(deployment, 0)
    healthy(deployment, 1)
    with deployment.server("mlflow"):
        path = client.download_artifacts(run_id, "weights.txt", str(tmp_path))
        assert Path(path).read_text() == "1 2 3"


def healthy(deployment: Deployment, code: int) -> None:
    """Runs the health check of the image like Docker."""
    _, command = health_check_of_image()
    done = subprocess.run(
        runnable(command), env=deployment.environ("mlflow"), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == code


def test_with_users_it_authenticates_and_keeps_them_in_the_database(deployment: Deployment) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    with deployment.server("mlflow-auth", ("admin", FILLED_IN["MLFLOW_AUTH_ADMIN_PASSWORD"])):
        body = {"experiment_ids": ["0"]}
        assert call(deployment.url, "POST", "runs/search", body, Host="mlflow:5000").status == 401
        assert call(deployment.url, "POST", "runs/search", body, Host="mlflow:5000", **ADMIN).status == 200
        assert call(deployment.url, "GET", "/health").status == 200
    assert deployment.database.ask("SELECT username FROM users;").split() == ["admin"]


def test_with_users_mlflow_itself_refuses_to_start_without_a_secret(deployment: Deployment) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    environ = {**deployment.environ("mlflow-auth"), "MLFLOW_AUTH_ADMIN_PASSWORD": ""}
    done = forks.run(
        deployment.argv("mlflow-auth")[1:],
        forks.SERVER,
        timeout=SECONDS,
        env=environ,
        cwd=deployment.directory,
    )
    assert done.returncode != 0
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in done.stderr


def test_a_server_rejects_tables_that_were_not_upgraded(deployment: Deployment) -> None:
    deployment.database.ask("UPDATE alembic_version SET version_num = '451aebb31d03';")
    done = forks.run(
        deployment.argv("mlflow")[1:],
        forks.SERVER,
        timeout=SECONDS,
        env=deployment.environ("mlflow"),
        cwd=deployment.directory,
    )
    assert done.returncode != 0
    assert "out-of-date database schema" in done.stderr


def test_doctor_finds_nothing_wrong_in_the_servers_container(deployment: Deployment) -> None:
    names = ("mlflow:5000", "localhost:5001", "ml.example.org")
    asked = [word for name in names for word in ("--public-name", name)]
    done = forks.run(
        ["-m", "mlflow_sysmetrics.cli", "server", "doctor", *asked],
        timeout=SECONDS,
        env={**deployment.environ("mlflow"), "PYTHONIOENCODING": "utf-8"},
        cwd=deployment.directory,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "up to 60 (2 workers x 2 pools x 15) of 97" in done.stdout
    assert "current (" in done.stdout
    assert PASSWORD not in done.stdout


def test_the_database_knows_its_settings(database: Database) -> None:
    words = compose(ENV_FILE)["services"]["postgres"]["command"]
    for setting in words[2::2]:
        name, _, value = setting.partition("=")
        answer = database.ask(f"SELECT vartype FROM pg_settings WHERE name = '{name}';")
        assert answer.strip() in {"integer", "real"}
        assert float(value) >= 0
