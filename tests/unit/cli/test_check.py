"""`check` takes four steps on a tracking server, reports each result, and removes what it created."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module

import pytest
from click.testing import CliRunner, Result
from fake_tracking_server import FakeServer

from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.stores import StoredExperiment
from mlflow_sysmetrics.preflight import verification
from mlflow_sysmetrics.preflight.cleanup import CHECK_TAG
from mlflow_sysmetrics.preflight.verification import Step, Verification

SERVER = "http://me:s3cret@tracking:5000"
DOWN = Fault("HTTP 503", Cause.DOWN, status_code=503)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """The server behind every tracking URI."""
    fake = FakeServer()

    def verify(uri: str, experiment: str | None, *, timeout: float) -> Verification:
        return Verification(
            uri, experiment, timeout=timeout, connect=lambda _: (fake, fake), sleep=fake.slept.append
        )

    monkeypatch.setattr(import_module("mlflow_sysmetrics.cli.check"), "Verification", verify)
    monkeypatch.setattr(fluent_state, "version", lambda: "3.17.2")  # MLflow takes seconds to import
    monkeypatch.setattr(verification, "credentials_sent", lambda _: "no credentials")
    return fake


def check(*arguments: str, uri: str = SERVER) -> Result:
    return CliRunner().invoke(main, ["check", "--tracking-uri", uri, *arguments])


def test_all_four_steps_pass_and_nothing_remains(server: FakeServer) -> None:
    done = check()
    assert done.exit_code == 0, done.output
    assert done.stdout.count("✓ ") == 4
    assert "All 4 steps passed" in done.stdout
    assert (server.runs, server.active) == ({}, [])


def test_output_of_mlflow_is_kept_off_stdout(server: FakeServer) -> None:
    del server
    assert "View run" not in check("--json").stdout


def test_secrets_of_the_tracking_uri_are_not_shown(server: FakeServer) -> None:
    server.fails["reach"] = DOWN
    assert "s3cret" not in check().output + check("--json").output


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("reach", 1),
        ("open", 1),
        ("create_experiment", 2),
        ("create_run", 3),
        ("log", 3),
        ("set_status", 3),
        ("run", 4),
    ],
)
def test_a_failing_step_is_the_last_and_nothing_remains(server: FakeServer, method: str, step: int) -> None:
    server.fails[method] = DOWN
    done = check()
    assert done.exit_code == 1
    assert f"✗ {step}." in done.stdout
    assert done.stdout.count("not tried") == 4 - step
    assert f"Step {step} failed" in done.stdout
    assert (server.runs, server.active) == ({}, [])


def test_a_failure_includes_its_remedy(server: FakeServer) -> None:
    server.fails["experiment_named"] = Fault("HTTP 401", Cause.UNAUTHENTICATED, status_code=401)
    document = json.loads(check("--json").stdout)
    failed = document["steps"][-1]
    assert (document["ok"], failed["number"], failed["status_code"]) == (False, 2, 401)
    assert "MLFLOW_TRACKING_USERNAME" in failed["remedy"]


def test_a_value_other_than_the_written_one_fails_the_last_step(server: FakeServer) -> None:
    server.log = lambda *_: None  # type: ignore[method-assign]
    done = check()
    assert done.exit_code == 1
    assert "was written as 1, but reads None" in " ".join(done.stdout.split())


@pytest.mark.parametrize("method", ["create_run", "create_experiment"])
def test_what_was_created_without_an_answer_is_removed(server: FakeServer, method: str) -> None:
    server.lost[method] = Fault("no answer within 30 s", Cause.DOWN)
    assert check().exit_code == 1
    assert (server.runs, server.active) == ({}, [])


def test_a_missing_run_is_searched_for_once_more(server: FakeServer) -> None:
    server.fails["create_run"] = DOWN
    check()
    assert server.slept == [1.0]


@pytest.mark.parametrize("method", ["create_experiment", "log", "run"])
def test_an_interrupt_leaves_nothing_behind(server: FakeServer, method: str) -> None:
    server.lost[method] = KeyboardInterrupt()
    done = check()
    assert done.exit_code == 130
    assert (server.runs, server.active) == ({}, [])


def test_an_existing_experiment_stays(server: FakeServer) -> None:
    server.create_experiment("mine", 1.0)
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_removing_a_created_experiment_frees_its_name(server: FakeServer) -> None:
    assert check("--experiment", "mine").exit_code == 0
    assert "mine" not in server.experiments
    assert server.active == []


def test_an_experiment_with_other_runs_stays(server: FakeServer) -> None:
    def others(run_id: str, seconds: float) -> None:
        del server.runs[run_id], seconds
        server.runs["theirs"] = {"experiment": "1", "tags": {}}

    server.delete_run = others  # type: ignore[method-assign]
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_an_experiment_of_unknown_origin_stays(server: FakeServer) -> None:
    server.lost["create_experiment"] = DOWN
    check("--experiment", "mine")
    assert server.active == ["mine"]


def test_a_deleted_experiment_fails_with_the_command_to_restore_it(server: FakeServer) -> None:
    server.experiments["mine"] = StoredExperiment("7", "mine", "deleted")
    done = check("--experiment", "mine")
    assert done.exit_code == 1
    assert "mlflow experiments restore --experiment-id 7" in " ".join(done.stdout.split())
    assert server.experiments["mine"].lifecycle_stage == "deleted"


def test_an_experiment_created_concurrently_is_used_and_stays(
    server: FakeServer,
) -> None:
    server.lost["create_experiment"] = Fault("there is one", Cause.EXISTS)
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_keep_keeps_the_run(server: FakeServer) -> None:
    done = check("--keep")
    assert done.exit_code == 0
    assert "run run-1 in mlflow-sysmetrics-check-" in " ".join(done.stdout.split())
    assert list(server.runs) == ["run-1"]


def test_what_cannot_be_removed_is_listed_without_failing(server: FakeServer) -> None:
    server.fails["delete_run"] = Fault("HTTP 403 PERMISSION_DENIED", Cause.FORBIDDEN, status_code=403)
    done = check()
    assert done.exit_code == 0
    assert "! Left behind" in done.stdout
    assert "run run-1: HTTP 403 PERMISSION_DENIED" in " ".join(done.stdout.split())


def test_the_run_has_the_check_tag(server: FakeServer) -> None:
    check("--keep")
    assert len(server.runs["run-1"]["tags"][CHECK_TAG]) == 32


def test_a_malformed_uri_fails_the_first_step_without_a_request(server: FakeServer) -> None:
    server.fails["reach"] = AssertionError("was asked")
    done = check(uri="http://:5000")
    assert done.exit_code == 1
    assert "has no host" in " ".join(done.stdout.split())


@pytest.mark.parametrize("wrong", [["--experiment", " "], ["--timeout", "soon"], ["surplus"]])
def test_a_wrong_command_line_is_a_usage_error(server: FakeServer, wrong: list[str]) -> None:
    del server
    assert check(*wrong).exit_code == 2


def test_steps_are_yielded_one_by_one(server: FakeServer) -> None:
    steps: Iterator[Step] = Verification(SERVER, connect=lambda _: (server, server)).steps()
    assert next(steps).name == "Server"
    assert server.runs == {}
