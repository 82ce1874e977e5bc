"""`check` takes four steps on a tracking server, says what came back, and removes what it made."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

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
    """The server of every tracking URI."""
    fake = FakeServer()

    def verify(uri: str, experiment: str | None, *, timeout: float) -> Verification:
        return Verification(
            uri, experiment, timeout=timeout, connect=lambda _: (fake, fake), sleep=fake.slept.append
        )

    # By its module: the package has the command under the same name.
    monkeypatch.setattr(sys.modules["mlflow_sysmetrics.cli.check"], "Verification", verify)
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


def test_what_mlflow_prints_stays_out_of_the_standard_output(server: FakeServer) -> None:
    del server
    assert "View run" not in check("--json").stdout


def test_no_secret_of_the_tracking_uri_is_shown(server: FakeServer) -> None:
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
def test_a_step_that_fails_is_the_last_and_nothing_remains(
    server: FakeServer, method: str, step: int
) -> None:
    server.fails[method] = DOWN
    done = check()
    assert done.exit_code == 1
    assert f"✗ {step}." in done.stdout
    assert done.stdout.count("not tried") == 4 - step
    assert f"Step {step} failed" in done.stdout
    assert (server.runs, server.active) == ({}, [])


def test_a_failure_comes_with_its_remedy(server: FakeServer) -> None:
    server.fails["experiment_named"] = Fault("HTTP 401", Cause.UNAUTHENTICATED, status_code=401)
    document = json.loads(check("--json").stdout)
    failed = document["steps"][-1]
    assert (document["ok"], failed["number"], failed["status_code"]) == (False, 2, 401)
    assert "MLFLOW_TRACKING_USERNAME" in failed["remedy"]


def test_a_value_that_is_not_what_was_written_fails_the_last_step(server: FakeServer) -> None:
    server.log = lambda *_: None  # type: ignore[method-assign]
    done = check()
    assert done.exit_code == 1
    assert "was written as 1, but reads None" in " ".join(done.stdout.split())


@pytest.mark.parametrize("method", ["create_run", "create_experiment"])
def test_what_was_made_without_an_answer_is_removed_too(server: FakeServer, method: str) -> None:
    server.lost[method] = Fault("no answer within 30 s", Cause.DOWN)
    assert check().exit_code == 1
    assert (server.runs, server.active) == ({}, [])


def test_a_run_that_appears_late_is_looked_for_once_more(server: FakeServer) -> None:
    server.fails["create_run"] = DOWN
    check()
    assert server.slept == [1.0]


@pytest.mark.parametrize("method", ["create_experiment", "log", "run"])
def test_an_interrupt_leaves_nothing_behind(server: FakeServer, method: str) -> None:
    server.lost[method] = KeyboardInterrupt()
    done = check()
    assert done.exit_code == 1
    assert (server.runs, server.active) == ({}, [])


def test_an_experiment_that_was_there_stays(server: FakeServer) -> None:
    server.create_experiment("mine", 1.0)
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_an_experiment_that_was_made_for_the_job_leaves_its_name_free(server: FakeServer) -> None:
    assert check("--experiment", "mine").exit_code == 0
    assert "mine" not in server.experiments
    assert server.active == []


def test_an_experiment_that_others_use_by_now_stays(server: FakeServer) -> None:
    def others(run_id: str, seconds: float) -> None:
        del server.runs[run_id], seconds
        server.runs["theirs"] = {"experiment": "1", "tags": {}}

    server.delete_run = others  # type: ignore[method-assign]
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_an_experiment_that_may_be_somebody_elses_stays(server: FakeServer) -> None:
    server.lost["create_experiment"] = DOWN
    check("--experiment", "mine")
    assert server.active == ["mine"]


def test_a_deleted_experiment_fails_with_how_to_restore_it(server: FakeServer) -> None:
    server.experiments["mine"] = StoredExperiment("7", "mine", "deleted")
    done = check("--experiment", "mine")
    assert done.exit_code == 1
    assert "mlflow experiments restore --experiment-id 7" in " ".join(done.stdout.split())
    assert server.experiments["mine"].lifecycle_stage == "deleted"


def test_an_experiment_that_somebody_else_makes_at_the_same_time_is_used_and_stays(
    server: FakeServer,
) -> None:
    server.lost["create_experiment"] = Fault("there is one", Cause.EXISTS)
    assert check("--experiment", "mine").exit_code == 0
    assert server.active == ["mine"]


def test_kept_is_what_was_made(server: FakeServer) -> None:
    done = check("--keep")
    assert done.exit_code == 0
    assert "run run-1 in mlflow-sysmetrics-check-" in " ".join(done.stdout.split())
    assert list(server.runs) == ["run-1"]


def test_what_cannot_be_removed_is_named_and_fails_nothing(server: FakeServer) -> None:
    server.fails["delete_run"] = Fault("HTTP 403 PERMISSION_DENIED", Cause.FORBIDDEN, status_code=403)
    done = check()
    assert done.exit_code == 0
    assert "! Left behind" in done.stdout
    assert "run run-1: HTTP 403 PERMISSION_DENIED" in " ".join(done.stdout.split())


def test_the_run_carries_the_tag_by_which_it_is_found(server: FakeServer) -> None:
    check("--keep")
    assert len(server.runs["run-1"]["tags"][CHECK_TAG]) == 32


def test_a_malformed_uri_fails_the_first_step_without_being_asked(server: FakeServer) -> None:
    server.fails["reach"] = AssertionError("was asked")
    done = check(uri="http://:5000")
    assert done.exit_code == 1
    assert "has no host" in " ".join(done.stdout.split())


@pytest.mark.parametrize("wrong", [["--experiment", " "], ["--timeout", "soon"], ["surplus"]])
def test_a_wrong_command_line_is_a_usage_error(server: FakeServer, wrong: list[str]) -> None:
    del server
    assert check(*wrong).exit_code == 2


def test_steps_are_yielded_as_they_are_taken(server: FakeServer) -> None:
    steps: Iterator[Step] = Verification(SERVER, connect=lambda _: (server, server)).steps()
    assert next(steps).name == "Server"
    assert server.runs == {}
