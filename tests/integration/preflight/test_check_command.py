"""`check` on real servers: what it reports, what it leaves behind, and what it never shows."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import forks
import pytest
from chaos_proxy import LOG_BATCH, Proxy
from command_line import arguments_of, call, command, document, environ_with, remains

from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

pytest_plugins = ["tracking_servers"]
CREATE_RUN = "/api/2.0/mlflow/runs/create"
NOTHING: tuple[list[str], list[str]] = ([], [])


@pytest.fixture
def proxy(sqlite_server: str) -> Iterator[Proxy]:
    """A proxy in front of the server, transparent at first."""
    running = Proxy(int(sqlite_server.rpartition(":")[2]))
    yield running
    running.close()


def test_a_working_server_passes_and_keeps_nothing(sqlite_server: str) -> None:
    done = document("check", "--tracking-uri", sqlite_server)
    assert (done["ok"], [step["number"] for step in done["steps"]]) == (True, [1, 2, 3, 4])
    assert done["server_version"] == done["client_version"]
    assert remains(sqlite_server) == NOTHING


def test_the_experiment_of_the_job_can_be_created_afterwards(sqlite_server: str) -> None:
    command("check", "--tracking-uri", sqlite_server, "--experiment", "check of a job")
    made = call(sqlite_server, "POST", "experiments/create", {"name": "check of a job"})
    assert "experiment_id" in made
    call(sqlite_server, "POST", "experiments/delete", made)


def test_a_database_passes_without_output_of_mlflow_on_stdout(store: Any) -> None:
    done = command("check", "--tracking-uri", store.uri)
    lines = done.stdout.splitlines()
    beginning = " ".join(done.stdout[:500].split())  # its lines are wrapped
    assert beginning.startswith(f"Checking {redacted(store.uri)} with MLflow ")
    assert lines[-1].startswith("All 4 steps passed in ")
    assert done.stdout.count("✓ ") == 4
    (default,) = store.client.search_experiments()
    assert default.name == "Default"


def test_a_server_with_users_passes_with_the_right_password(guarded_uri: str) -> None:
    done = command("check", "--tracking-uri", guarded_uri)
    assert "s3cr3t" not in done.stdout + done.stderr


def test_a_wrong_password_fails_with_its_kind_of_credentials_and_is_not_shown(guarded_server: str) -> None:
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wr0ng-p4ssword"}
    done = command("check", "--tracking-uri", guarded_server, status=1, **user)
    text = " ".join(done.stdout.split())
    assert "✗ 2. Experiment" in text
    assert "HTTP 401" in text
    assert "This program sent basic authentication" in text
    assert "wr0ng" not in done.stdout + done.stderr


def test_a_run_whose_creation_was_not_confirmed_is_deleted(proxy: Proxy, sqlite_server: str) -> None:
    with proxy.troubled("lose-answer", only=CREATE_RUN):
        command("check", "--tracking-uri", proxy.url, status=1)
    assert remains(sqlite_server) == NOTHING


def test_an_interrupt_in_the_middle_leaves_nothing_behind(proxy: Proxy, sqlite_server: str) -> None:
    with proxy.troubled("hang", only=LOG_BATCH):
        process = forks.popen(
            arguments_of("check", "--tracking-uri", proxy.url),
            env=environ_with(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        with process:
            proxy.await_requests(1, seconds=120)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted." in errors
    assert "Traceback" not in output + errors
    assert remains(sqlite_server) == NOTHING


def test_a_hanging_server_is_abandoned_after_the_timeout(proxy: Proxy) -> None:
    with proxy.troubled("hang"):
        done = document("check", "--tracking-uri", proxy.url, "--timeout", "1s", status=1)
    (step,) = done["steps"]
    assert step["text"].startswith("no answer within 1")
    assert step["seconds"] < 30


def test_a_missing_tracking_uri_is_a_usage_error() -> None:
    assert "MLFLOW_TRACKING_URI" in command("check", status=2).stderr
