"""Runs of a tracking server: points are delivered only if MLflow says so, and faults say why."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_connection import RestConnection
from mlflow_sysmetrics.mlflow_api.runs import ClientRuns, Metric, RestRuns, RunState
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer

URI = "http://me:secret-word@server:5000"
INFO = {"run_id": "r", "run_uuid": "r", "status": "RUNNING", "start_time": 1_700_000_000_000}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The next answers of the server; what was sent takes their place."""
    found: list[Any] = []

    def send(*arguments: Any, **named: Any) -> ServerAnswer:
        answer = found.pop(0)
        found.append((arguments[1:3], named))
        assert isinstance(answer, ServerAnswer)
        return answer

    monkeypatch.setattr(RestConnection, "send", send)
    return found


def answer(body: object, status: int = 200, **more: Any) -> ServerAnswer:
    return ServerAnswer(status, body if isinstance(body, str) else json.dumps(body), {}, 0.01, **more)


def of_rest() -> RestRuns:
    return RestRuns(object, URI)


def log(found: RestRuns) -> None:
    found.log_batch("r", [Metric("loss", 0.5, 1, 2), Metric("x", math.nan, 1, 2)], {"a": "b"})


def test_the_empty_object_is_mlflows_acknowledgement(answers: list[Any]) -> None:
    answers.append(answer({}))
    log(of_rest())
    ((method, path), named) = answers[0]
    assert (method, path) == ("POST", "/api/2.0/mlflow/runs/log-batch")
    assert named["json"] == {
        "run_id": "r",
        "metrics": [
            {"key": "loss", "value": 0.5, "timestamp": 1, "step": 2},
            {"key": "x", "value": "NaN", "timestamp": 1, "step": 2},
        ],
        "tags": [{"key": "a", "value": "b"}],
    }


@pytest.mark.parametrize(
    "other",
    [
        answer({"error_code": "INTERNAL_ERROR", "message": "disk full"}),
        answer({"error_code": "RESOURCE_DOES_NOT_EXIST"}),
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "run_id"}),
        answer({"login": "https://sso"}),
        answer({"run": {"info": INFO}}),
        answer([]),
        answer("null"),
        answer(""),
        answer("<html>Sign in</html>"),
        answer({}, is_to_request=False, redirected_to="http://server:5000/login"),
        answer({}, status=202),
        answer({}, status=204),
    ],
    ids=lambda one: f"{one.status_code} {one.text[:40]} {one.is_to_request}",
)
def test_anything_else_keeps_the_points(answers: list[Any], other: ServerAnswer) -> None:
    answers.append(other)
    with pytest.raises(Fault) as raised:
        log(of_rest())
    assert not raised.value.refuses_run
    assert raised.value.cause in {Cause.NOT_MLFLOW, Cause.FAILED}
    assert f"HTTP {other.status_code}" in raised.value.reason


def test_the_state_of_a_run_is_read(answers: list[Any]) -> None:
    answers.append(answer({"run": {"info": INFO}}))
    assert of_rest().state("r") == RunState("RUNNING", 1_700_000_000_000)


def test_a_run_without_a_start_has_none(answers: list[Any]) -> None:
    answers.append(answer({"run": {"info": {"run_id": "r", "status": "FINISHED"}}}))
    assert of_rest().state("r") == RunState("FINISHED", None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"run": {}},
        {"run": None},
        {"run": {"info": []}},
        {"run": {"info": {}}},
        {"run": {"info": INFO | {"run_id": "another", "run_uuid": "another"}}},
        {"run": {"info": INFO | {"start_time": "soon"}}},
        {"error_code": "INTERNAL_ERROR"},
    ],
)
def test_a_state_of_another_shape_is_not_believed(answers: list[Any], body: object) -> None:
    answers.append(answer(body))
    with pytest.raises(Fault) as raised:
        of_rest().state("r")
    assert not raised.value.refuses_run


def test_a_refused_anonymous_request_says_that_credentials_were_withheld(answers: list[Any]) -> None:
    answers.append(answer("", status=401))
    with pytest.raises(
        Fault, match="credentials of the environment are sent only to the server of"
    ) as raised:
        log(RestRuns(object, URI, lambda: False))
    assert raised.value.refuses_credentials
    assert answers[0][1]["anonymous"]


def test_credentials_that_cannot_be_obtained_may_be_there_later() -> None:
    def expired() -> Any:
        raise PermissionError(13, "token expired")

    with pytest.raises(Fault, match="token expired") as raised:
        log(RestRuns(expired, URI))
    assert raised.value.cause is Cause.DOWN
    assert not raised.value.refuses_credentials
    assert raised.value.__context__ is None


class FailingClient:
    """A client whose store fails."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def log_batch(self, *_: object, **__: object) -> None:
        if self.error is not None:
            raise self.error
        layered()


def layered() -> None:
    """Fails as MLflow does on top of requests on top of urllib3 on top of a socket."""
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("Max retries exceeded with url: http://user:secret@server") from error
    except RuntimeError as error:
        raise ValueError(f"API request failed with exception {error}") from error


def write(error: Exception | None) -> None:
    ClientRuns(FailingClient(error), URI).log_batch("run", [], {})


def test_the_reason_is_the_one_at_the_bottom() -> None:
    with pytest.raises(Fault, match=r"^Connection refused$"):
        write(None)


def test_a_long_reason_is_cut_and_says_so() -> None:
    with pytest.raises(Fault, match=r"^KeyError: 'x{200,299}\.\.\.$"):
        write(KeyError("x" * 1000))


def test_an_exception_that_is_its_own_cause_ends() -> None:
    error = RuntimeError("round and round")
    error.__cause__ = error
    with pytest.raises(Fault, match="round and round"):
        write(error)


@pytest.mark.parametrize(
    ("code", "final"),
    [
        ("RESOURCE_DOES_NOT_EXIST", True),
        ("INVALID_PARAMETER_VALUE", True),
        ("TEMPORARILY_UNAVAILABLE", False),
        ("INTERNAL_ERROR", False),
        ("BAD_REQUEST", False),
        (None, False),
    ],
)
def test_the_error_of_a_store_is_final_or_may_pass(code: str | None, *, final: bool) -> None:
    error = RuntimeError("no")
    error.error_code = code  # type: ignore[attr-defined]
    with pytest.raises(Fault) as raised:
        write(error)
    assert raised.value.refuses_run is final
