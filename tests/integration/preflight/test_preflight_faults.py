"""After a failure at any step, the run and the files agree, and no second run is created."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow_double import Answer, Double, Lost, RunPreflight, error

from mlflow_sysmetrics.errors import (
    ExperimentError,
    PreflightError,
    RunStartError,
    RunVerificationError,
    ServerUnreachableError,
)
from mlflow_sysmetrics.preflight import read_status

pytest_plugins = ["preflight_fixtures"]
SECRET = "s3cr3t-value"


def document(files: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("path", "kind", "step", "runs"),
    [
        ("/health", ServerUnreachableError, 1, []),
        ("experiments/get-by-name", ExperimentError, 2, []),
        ("experiments/create", ExperimentError, 2, []),
        ("runs/create", RunStartError, 3, []),
        ("runs/log-batch", RunVerificationError, 4, ["FAILED"]),
        ("runs/get", RunVerificationError, 4, ["FAILED"]),
    ],
)
def test_a_failure_at_a_step_leaves_run_and_file_consistent(  # noqa: PLR0917 - a table
    double: Double,
    run_preflight: RunPreflight,
    files: Path,
    path: str,
    kind: type[PreflightError],
    step: int,
    runs: list[str],
) -> None:
    double.answers(path, Answer(500))
    with pytest.raises(kind) as raised:
        run_preflight(tracking_uri=double.url, max_retries=2)
    status = read_status(files)
    assert (raised.value.step, raised.value.status_code) == (step, 500)
    assert double.statuses() == runs
    assert (status.stage, status.step, status.error_type) == ("failed", step, kind.__name__)
    assert status.error == str(raised.value)
    assert status.attempts[-1].status_code == 500
    assert status.run_id == (next(iter(double.runs)) if runs else None)


def test_a_lost_response_to_run_creation_leaves_one_run(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("runs/create", Lost(), times=1)
    result = run_preflight(tracking_uri=double.url)
    assert list(double.runs) == [result.run_id]
    assert double.count("runs/create") == 1


def test_a_run_that_was_not_created_is_created_at_the_second_attempt(
    double: Double, run_preflight: RunPreflight
) -> None:
    double.answers("runs/create", Answer(503), times=1)
    result = run_preflight(tracking_uri=double.url)
    assert list(double.runs) == [result.run_id]
    assert double.count("runs/create") == 2


def test_a_run_whose_creation_was_never_confirmed_is_ended(
    double: Double, run_preflight: RunPreflight
) -> None:
    double.answers("runs/create", Lost(), times=1)
    double.answers("runs/search", Answer(500), times=1)
    with pytest.raises(RunStartError):
        run_preflight(tracking_uri=double.url, max_retries=2)
    assert double.statuses() == ["FAILED"]


def test_an_experiment_that_another_process_creates_first_is_used(
    double: Double, run_preflight: RunPreflight
) -> None:
    def race(path: str) -> None:
        if path.endswith("experiments/create"):
            double.make_experiment("ships")

    double.on_request = race
    double.answers("experiments/create", error(400, "RESOURCE_ALREADY_EXISTS", "there is one"))
    assert run_preflight(tracking_uri=double.url).experiment_id == "1"


def test_a_lost_response_to_experiment_creation_leaves_one_experiment(
    double: Double, run_preflight: RunPreflight
) -> None:
    double.answers("experiments/create", Lost(), times=1)
    double.answers("experiments/create", error(400, "RESOURCE_ALREADY_EXISTS", "there is one"))
    run_preflight(tracking_uri=double.url)
    assert [one["name"] for one in double.experiments.values()] == ["Default", "ships"]


def test_a_metric_that_is_not_read_back_fails_the_run(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("runs/log-batch", Answer(200, "{}"))
    with pytest.raises(RunVerificationError, match="preflight/ok = 1 was written"):
        run_preflight(tracking_uri=double.url)
    assert double.statuses() == ["FAILED"]


def test_a_run_that_can_be_neither_checked_nor_ended_is_named(
    double: Double, run_preflight: RunPreflight
) -> None:
    for path in ("runs/log-batch", "runs/update"):
        double.answers(path, Answer(500))
    with pytest.raises(RunVerificationError, match="may be left RUNNING") as raised:
        run_preflight(tracking_uri=double.url)
    assert next(iter(double.runs)) in str(raised.value)


def test_ctrl_c_after_the_run_was_created_ends_it_as_killed(
    double: Double, run_preflight: RunPreflight, files: Path
) -> None:
    def interrupt(_wait: float) -> float:
        raise KeyboardInterrupt

    double.answers("runs/log-batch", Answer(503))
    with pytest.raises(KeyboardInterrupt):
        run_preflight(tracking_uri=double.url, shortened=interrupt)
    assert double.statuses() == ["KILLED"]
    assert read_status(files).error_type == "KeyboardInterrupt"


def test_a_finished_run_that_is_resumed_runs_again(double: Double, run_preflight: RunPreflight) -> None:
    run_id = double.make_run("FINISHED")
    assert run_preflight(None, tracking_uri=double.url, run_id=run_id, tags={"again": "1"}).run_id == run_id
    assert double.statuses() == ["RUNNING"]
    assert {"key": "again", "value": "1"} in double.runs[run_id]["data"]["tags"]


def test_a_finished_run_that_cannot_be_resumed_is_left_as_it_was(
    double: Double, run_preflight: RunPreflight
) -> None:
    run_id = double.make_run("FINISHED")
    before = dict(double.runs[run_id]["info"])
    double.answers("runs/log-batch", Answer(500))
    with pytest.raises(RunVerificationError):
        run_preflight(None, tracking_uri=double.url, run_id=run_id)
    assert double.runs[run_id]["info"] == before


def test_a_running_run_of_another_program_is_not_ended(double: Double, run_preflight: RunPreflight) -> None:
    run_id = double.make_run("RUNNING")
    double.answers("runs/log-batch", Answer(500))
    with pytest.raises(RunVerificationError):
        run_preflight(None, tracking_uri=double.url, run_id=run_id)
    assert double.statuses() == ["RUNNING"]


@pytest.mark.parametrize(
    ("stage", "words"), [("deleted", "mlflow runs restore"), (None, "Check the name or id")]
)
def test_a_deleted_or_missing_run_is_not_resumed(
    double: Double, run_preflight: RunPreflight, stage: str | None, words: str
) -> None:
    run_id = double.make_run(stage=stage) if stage else "0" * 32
    with pytest.raises((RunStartError, ExperimentError), match=words):
        run_preflight(None, tracking_uri=double.url, run_id=run_id)


def test_success_sets_the_uri_and_experiment_in_mlflow(double: Double, run_preflight: RunPreflight) -> None:
    result = run_preflight("ships", tracking_uri=double.url)
    with mlflow.start_run(run_id=result.run_id) as run:
        assert (run.info.run_id, mlflow.get_tracking_uri()) == (result.run_id, double.url)
    assert double.runs[result.run_id]["info"]["experiment_id"] == result.experiment_id


def test_failure_keeps_the_tracking_uri_that_was_set(double: Double, run_preflight: RunPreflight) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    double.answers("runs/get", Answer(500))
    with pytest.raises(RunVerificationError):
        run_preflight(tracking_uri=double.url)
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"


def test_any_number_of_parameters_and_tags_is_logged(double: Double, run_preflight: RunPreflight) -> None:
    result = run_preflight(
        tracking_uri=double.url, params={f"p{n}": n for n in range(150)}, tags={"team": "red"}
    )
    logged = double.runs[result.run_id]["data"]
    tags = {one["key"]: one["value"] for one in logged["tags"]}
    assert len(logged["params"]) == 150
    assert tags["team"] == "red"
    assert {"mlflow.user", "mlflow.source.name", "sysmetrics.preflight_id"} <= tags.keys()


def test_the_files_of_a_success_agree_with_the_run(
    double: Double, run_preflight: RunPreflight, files: Path
) -> None:
    result = run_preflight("ships", "first", tracking_uri=double.url)
    status, told = document(files, "mlflow_status.json"), document(files, "mlflow_info.json")
    assert (status["stage"], status["run_id"], status["error"]) == ("initialized", result.run_id, None)
    assert (told["run_id"], told["run_name"], told["status"]) == (result.run_id, "first", "RUNNING")


def test_no_secret_is_in_any_message_log_or_file(  # noqa: PLR0917 - where it could be
    double: Double,
    run_preflight: RunPreflight,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, "mlflow_sysmetrics")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    echo = Answer(503, f"you sent Authorization: Bearer {SECRET}, and cookie {SECRET}")
    for path in ("/health", "experiments/get-by-name", "runs/create", "runs/get"):
        double.answers(path, echo, times=1)
    double.answers("runs/log-batch", Answer(401, f"token {SECRET} has expired"))
    with pytest.raises(PreflightError) as raised:
        run_preflight(tracking_uri=double.url.replace("http://", f"http://anna:{SECRET}@"))
    assert double.headers["Authorization"]
    written = "".join(path.read_text(encoding="utf-8") for path in files.iterdir())
    shown = "".join(capfd.readouterr())
    for text in (
        str(raised.value),
        repr(raised.value.attempts),
        raised.value.tracking_uri,
        caplog.text,
        written,
        shown,
    ):
        assert SECRET not in text
        assert "anna" not in text
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
