"""What the two files say, and what is read of a status file by whoever wrote it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from mlflow_sysmetrics.preflight.attempts import Attempt
from mlflow_sysmetrics.preflight.status_files.documents import run_document, status_document, status_from
from mlflow_sysmetrics.preflight.status_files.status import STAGES, RunInfo, Status

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
REFUSED = Attempt(1, 1, NOON, 0.25, None, "Connection refused")
BUSY = Attempt(2, 1, NOON + timedelta(seconds=10), 1.5, 503, "HTTP 503 Service Unavailable")
FAILED = Status(
    stage="failed",
    tracking_uri="https://mlflow.example",
    experiment_name="mnist",
    experiment_id="7",
    run_id="0" * 32,
    step=1,
    error="nothing answers at https://mlflow.example",
    error_type="ServerUnreachableError",
    attempts=(REFUSED, BUSY),
    client_version="3.17.2",
    server_version="3.17.1",
    timestamp=NOON + timedelta(seconds=12),
)
RUN = RunInfo(
    run_id="0" * 32,
    experiment_id="7",
    experiment_name="mnist",
    tracking_uri="https://mlflow.example",
    run_name="first",
    started_at=NOON,
)


def through_json(document: dict[str, Any]) -> Any:
    return json.loads(json.dumps(document))


def newer(**changes: object) -> dict[str, Any]:
    return {**status_document(FAILED), "schema": 2, **changes}


def test_a_status_is_read_as_it_was_written() -> None:
    assert status_from(through_json(status_document(FAILED))) == FAILED


def test_what_is_not_known_yet_is_null_and_read_as_none() -> None:
    early = Status(stage="initializing", timestamp=NOON)
    document = through_json(status_document(early))
    assert document["run_id"] is None
    assert status_from(document) == early


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_read_back(stage: Any) -> None:
    assert status_from(status_document(Status(stage=stage))).stage == stage


def test_times_are_in_utc_and_say_so() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert (
        status_document(Status(stage="failed", timestamp=there))["timestamp"]
        == "2026-03-01T12:00:00.000+00:00"
    )


def test_the_password_of_the_tracking_uri_is_in_neither_document() -> None:
    uri = "https://anna:hunter2@mlflow.example"
    status = Status(
        stage="failed",
        tracking_uri=uri,
        error=f"nothing answers at {uri}",
        attempts=(Attempt(1, 1, NOON, 0.0, None, f"no route to {uri}"),),
    )
    run = RunInfo(run_id="1", experiment_id="1", experiment_name="e", tracking_uri=uri)
    assert "hunter2" not in json.dumps([status_document(status), run_document(run)])


def test_a_token_in_the_environment_is_cut_out_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sesame-sesame")
    status = Status(stage="failed", error="the proxy says: sesame-sesame is not welcome")
    assert "sesame" not in json.dumps(status_document(status))


def test_a_run_that_goes_on_has_no_end() -> None:
    document = run_document(RUN)
    assert document["status"] == "RUNNING"
    assert document["started_at"] == "2026-03-01T12:00:00.000+00:00"
    assert document["ended_at"] is None


def test_keys_of_a_newer_schema_are_passed_over() -> None:
    assert status_from(newer(weather="fine")) == FAILED


def test_a_stage_of_a_newer_schema_is_handed_on() -> None:
    assert status_from(newer(stage="resting")).stage == "resting"


def test_keys_that_a_newer_schema_has_no_more_are_none() -> None:
    document = newer()
    del document["run_id"], document["attempts"]
    status = status_from(document)
    assert status.run_id is None
    assert status.attempts == ()


def test_an_attempt_of_a_newer_schema_that_is_not_understood_is_left_out() -> None:
    listed = [*newer()["attempts"], {"n": 3, "at": "soon"}, "four"]
    assert status_from(newer(attempts=listed)).attempts == FAILED.attempts


def test_a_time_that_ends_in_z_is_in_utc() -> None:
    assert status_from(newer(timestamp="2026-03-01T12:00:00Z")).timestamp == NOON


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "it is no JSON object"),
        ({}, 'its "schema" is None'),
        ({**status_document(FAILED), "schema": True}, 'its "schema" is True'),
        ({**status_document(FAILED), "schema": 0}, 'its "schema" is 0'),
        ({**status_document(FAILED), "stage": "resting"}, "its \"stage\" is 'resting'"),
        ({**status_document(FAILED), "stage": 3}, 'its "stage" is 3'),
        ({**status_document(FAILED), "timestamp": "2026-03-01T12:00:00"}, "no time with an offset"),
        ({**status_document(FAILED), "timestamp": None}, "no time with an offset"),
    ],
)
def test_what_is_no_status_is_refused_with_the_reason(document: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        status_from(document)
