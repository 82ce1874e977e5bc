"""A `LocalServer` on sqlite: ready when the block is entered, and gone afterwards."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import psutil
import pytest
from forked_servers import servers_forked
from server_calls import call, family, living, new_run

from mlflow_sysmetrics.server import LocalServer, ServerStartError, launch
from mlflow_sysmetrics.server.ports import free_port
from reduced import IN_FULL
from watching import eventually

# What MLflow's client and its libraries warn of in this process is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
HAS_HOST_CHECK = hasattr(mlflow.environment_variables, "MLFLOW_SERVER_ALLOWED_HOSTS")
IS_UVICORN = hasattr(mlflow.environment_variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION")


@pytest.fixture(scope="module")
def server(empty_database: Path) -> Iterator[LocalServer]:
    """A server with several allowed names."""
    running = LocalServer(allowed_hosts=["mlflow", "*.example.org"])
    with servers_forked(empty_database):
        running.start()
    yield running
    running.stop()


def test_a_run_can_be_created_at_once(server: LocalServer) -> None:
    assert new_run(server.url)


def look_for_artifacts(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Makes a server the one where MLflow 2 looks for artifacts, also after a test that has chosen another."""
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", url)


def test_mlflow_logs_metrics_and_artifacts_to_it(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_for_artifacts(monkeypatch, server.url)
    client = mlflow.MlflowClient(server.url)
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "loss", 0.5)
    (tmp_path / "weights.txt").write_text("1 2 3")
    client.log_artifact(run.info.run_id, str(tmp_path / "weights.txt"))
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["weights.txt"]
    assert list((server.log_path.parent / "artifacts").rglob("weights.txt"))


@pytest.mark.skipif(not IS_UVICORN, reason="MLflow before 3 runs gunicorn, which has one process more")
def test_it_is_two_processes(server: LocalServer) -> None:
    assert len(family(server.pid)) == 2


@pytest.mark.usefixtures("forked")
def test_the_readiness_check_leaves_no_run_and_no_experiment(tmp_path: Path) -> None:
    with LocalServer(directory=tmp_path) as running:
        asked = {"experiment_ids": ["0"], "max_results": 10}
        assert "runs" not in call(running.url, "POST", "runs/search", asked).document
        found = call(running.url, "POST", "experiments/search", {"max_results": 10, "view_type": "ALL"})
        assert [one["name"] for one in found.document["experiments"]] == ["Default"]


@pytest.mark.skipif(not HAS_HOST_CHECK, reason="MLflow before 3.5 takes any name")
@pytest.mark.parametrize(
    ("name", "status"),
    [("mlflow:5000", 200), ("mlflow", 200), ("a.example.org:80", 200), ("evil.example", 403)],
)
def test_it_accepts_the_allowed_names(server: LocalServer, name: str, status: int) -> None:
    found = call(server.url, "GET", "experiments/get?experiment_id=0", Host=name)
    assert found.status == status


@pytest.mark.skipif(not HAS_HOST_CHECK, reason="MLflow before 3.5 takes any origin")
@pytest.mark.parametrize(
    ("origin", "status"), [("http://mlflow:5000", 200), ("https://mlflow", 200), ("http://evil.example", 403)]
)
def test_pages_of_an_allowed_name_may_make_changes(server: LocalServer, origin: str, status: int) -> None:
    body = {"experiment_ids": ["0"]}
    found = call(server.url, "POST", "runs/search", body, Host="mlflow:5000", Origin=origin)
    assert found.status == status


@pytest.mark.usefixtures("forked")
def test_an_mlflow_that_ignores_host_names_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlflow_sysmetrics"), LocalServer(allowed_hosts=["mlflow"]):
        assert ("allowed_hosts has no effect" in caplog.text) == (not HAS_HOST_CHECK)


@pytest.mark.slow
@pytest.mark.usefixtures("server")  # what servers are forked from has been connected to
def test_nothing_is_left_afterwards_and_nothing_in_the_caller_is_changed(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    """One test for temporary files, processes and the caller, because the interpreters start for ten seconds."""
    if not IN_FULL:
        request.getfixturevalue("forked")
    environ = dict(os.environ)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    threads = set(threading.enumerate())
    descriptors = psutil.Process().num_fds()
    with LocalServer(workers=2) as running:
        assert dict(os.environ) == environ
        assert new_run(running.url)
        directory, processes = running.log_path.parent, family(running.pid)
        assert len(processes) > 2
    assert living(processes) == []
    assert not directory.exists()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == handlers
    assert set(threading.enumerate()) <= threads  # one of before may have ended
    assert psutil.Process().num_fds() <= descriptors
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("forked")
def test_two_servers_can_run_at_once(server: LocalServer) -> None:
    with LocalServer() as other:
        run_id = new_run(other.url)
        assert other.url != server.url
        assert call(server.url, "GET", f"runs/get?run_id={run_id}").status == 404


@pytest.mark.usefixtures("forked")
def test_it_can_be_entered_again_and_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On one port, which MLflow 2 remembers as where artifacts are.
    again = LocalServer(directory=tmp_path / "kept", port=free_port("127.0.0.1"))
    client = mlflow.MlflowClient
    with again:
        look_for_artifacts(monkeypatch, again.url)
        run_id = new_run(again.url)
        client(again.url).log_text(run_id, "1 2 3", "weights.txt")
    with again:
        look_for_artifacts(monkeypatch, again.url)
        assert "RUNNING" in call(again.url, "GET", f"runs/get?run_id={run_id}").text
        path = client(again.url).download_artifacts(run_id, "weights.txt", str(tmp_path))
    assert Path(path).read_text() == "1 2 3"


def test_a_running_server_cannot_be_started_again(server: LocalServer) -> None:
    with pytest.raises(RuntimeError, match="is already running, at http://127"):
        server.start()


@pytest.mark.usefixtures("forked")
def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The kernel's parent-death signal would be sent when the thread ends."""
    running = LocalServer(directory=tmp_path)
    starter = threading.Thread(target=running.start)
    starter.start()
    starter.join()
    try:
        assert new_run(running.url)
    finally:
        running.stop()


def test_a_forked_child_does_not_end_its_parents_server(server: LocalServer) -> None:
    child = os.fork()
    if child == 0:
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert new_run(server.url)


@pytest.mark.usefixtures("forked")
def test_with_a_password_it_authenticates_users() -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    password = "50%-of-a-p4ssword"
    with LocalServer(admin_password=password) as running:
        assert call(running.url, "POST", "runs/search", {"experiment_ids": ["0"]}).status == 401
        assert running.environ["MLFLOW_TRACKING_PASSWORD"] == password
        assert password not in repr(running.log_path.read_text())
        with pytest.MonkeyPatch.context() as patch:
            for name, value in running.environ.items():
                patch.setenv(name, value)
            assert mlflow.MlflowClient(running.url).create_run("0").info.status == "RUNNING"


@pytest.mark.usefixtures("forked")
def test_a_killed_server_is_noticed(tmp_path: Path) -> None:
    with LocalServer(directory=tmp_path) as running:
        processes = family(running.pid)
        assert running.wait(0) is None
        os.kill(running.pid, signal.SIGKILL)
        eventually(lambda: running.wait(0) == 128 + signal.SIGKILL)
        assert living(processes) == []


def test_a_port_in_use_is_reported_at_once(tmp_path: Path) -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(ServerStartError, match=f"Port {port} .* choose another port"):
            LocalServer(directory=tmp_path, port=port).start()
    assert not (tmp_path / "server.log").exists()


@pytest.mark.usefixtures("forked")
def test_the_log_of_a_server_that_does_not_start_is_shown(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("these are no tables, however long the text goes on" * 10)
    broken = LocalServer(f"sqlite:///{tmp_path}/text.db", directory=tmp_path)
    with pytest.raises(ServerStartError, match="file is not a database") as raised:
        broken.start()
    assert raised.value.reason == "The tracking server ended with exit code 1 during startup."
    assert raised.value.log_tail in (tmp_path / "server.log").read_text()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("name", ["what?", "50%20off", "a b#c", "grün"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    with LocalServer(directory=tmp_path / name) as running:
        assert new_run(running.url)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert {one.name for one in (tmp_path / name).iterdir()} == {"artifacts", "mlflow.db", "server.log"}


def test_an_unwritable_artifact_directory_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (f"{tmp_path}/file/below", f"file://{tmp_path}/file/below", "/proc/below"):
        with pytest.raises(ServerStartError, match="Artifacts cannot be written to /"):
            LocalServer(artifacts_destination=where).start()


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (
        {"directory": tmp_path / "file"},
        {"backend_store_uri": f"sqlite:///{tmp_path}/file/a/b"},
    ):
        with pytest.raises(ServerStartError, match=f"cannot be created: .*{tmp_path}/file"):
            LocalServer(**arguments).start()


def test_a_server_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # which the server waits for
        slow = LocalServer(f"sqlite:///{path}", directory=tmp_path, start_timeout=0.1)
        with pytest.raises(ServerStartError, match=r"is not ready within 0\.1 s.*larger start_timeout"):
            slow.start()
    with pytest.raises(RuntimeError, match="not running"):
        _ = slow.url


@pytest.mark.usefixtures("forked")
def test_another_server_on_its_port_is_not_mistaken_for_it(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server may take the free port first."""
    ports = iter([int(server.url.rpartition(":")[2]), free_port("127.0.0.1")])
    monkeypatch.setattr(launch, "free_port", lambda _host: next(ports))
    monkeypatch.setattr(launch, "check_port", lambda _host, _port: None)
    with LocalServer() as running:
        assert running.url != server.url
        assert new_run(running.url)
    assert next(ports, None) is None
