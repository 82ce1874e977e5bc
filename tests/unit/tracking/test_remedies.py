"""What came back is understood, and each has something to do about it."""

from __future__ import annotations

import ssl
from itertools import pairwise

import pytest

from mlflow_sysmetrics.tracking.bounded import TookTooLong
from mlflow_sysmetrics.tracking.classification import fault_of_answer, fault_of_error
from mlflow_sysmetrics.tracking.faults import Cause, Fault
from mlflow_sysmetrics.tracking.remedies import remedy

SERVER = "https://anna:secret@host:5000"
DATABASE = "postgresql://anna:secret@host/runs"


class OfMlflow(Exception):  # noqa: N818 - stands in for MlflowException
    """Has a code, as MLflow's own have."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.error_code = code


def chained(*errors: Exception) -> Exception:
    """Returns the first of some exceptions, each caused by the next one."""
    for one, cause in pairwise(errors):
        one.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (200, "<html>Sign in</html>", Cause.NOT_MLFLOW),
        (401, "", Cause.UNAUTHENTICATED),
        (403, "", Cause.FORBIDDEN),
        (403, "Invalid Host header - possible DNS rebinding attack detected", Cause.WRONG_HOST),
        (404, "<h1>Not Found</h1>", Cause.NOT_MLFLOW),
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST"}', Cause.MISSING),
        (404, '{"error_code": "ENDPOINT_NOT_FOUND"}', Cause.NOT_MLFLOW),
        (400, '{"error_code": "RESOURCE_ALREADY_EXISTS"}', Cause.EXISTS),
        (400, '{"error_code": "INVALID_PARAMETER_VALUE"}', Cause.REFUSED),
        (408, "", Cause.DOWN),
        (429, '{"error_code": "REQUEST_LIMIT_EXCEEDED"}', Cause.DOWN),
        (500, '{"error_code": "INTERNAL_ERROR"}', Cause.DOWN),
        (503, "", Cause.DOWN),
    ],
)
def test_an_answer_tells_why(status: int, body: str, cause: Cause) -> None:
    fault = fault_of_answer(status, body, {})
    assert fault is not None
    assert fault.cause is cause


def test_an_answer_of_mlflow_is_no_fault() -> None:
    assert fault_of_answer(200, "{}", {}) is None


def test_retry_after_is_read() -> None:
    fault = fault_of_answer(503, "", {"Retry-After": "12"})
    assert fault is not None
    assert fault.retry_after == 12


def test_a_page_is_shown_by_its_words() -> None:
    fault = fault_of_answer(502, "<html><head><style>x</style></head><h1>Bad</h1> <p>Gateway</p></html>", {})
    assert fault is not None
    assert fault.reason == "HTTP 502: Bad Gateway"


def test_a_redirection_is_said() -> None:
    fault = fault_of_answer(405, "", {}, redirected_to="https://other/x")
    assert fault is not None
    assert fault.reason == "HTTP 405 (redirected to https://other/x)"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TookTooLong(), Cause.DOWN),
        (ConnectionRefusedError(111, "Connection refused"), Cause.DOWN),
        (chained(OSError("x"), ssl.SSLCertVerificationError(1, "self-signed certificate")), Cause.TLS),
        (ssl.SSLEOFError(8, "EOF occurred"), Cause.DOWN),
        (ModuleNotFoundError("No module named 'psycopg2'"), Cause.NO_DRIVER),
        (RuntimeError('FATAL: password authentication failed for user "anna"'), Cause.UNAUTHENTICATED),
        (RuntimeError('FATAL: database "runs" does not exist'), Cause.BAD_DATABASE),
        (RuntimeError("FATAL: the database system is starting up"), Cause.DOWN),
        (RuntimeError("database is locked"), Cause.DOWN),
        (OfMlflow("Detected out-of-date database schema", "INTERNAL_ERROR"), Cause.OLD_DATABASE),
        (OfMlflow("No run", "RESOURCE_DOES_NOT_EXIST"), Cause.MISSING),
        (OfMlflow("database trouble", "TEMPORARILY_UNAVAILABLE"), Cause.DOWN),
        (type("DefaultCredentialsError", (Exception,), {})("no credentials"), Cause.UNAUTHENTICATED),
        (type("InvalidURL", (ValueError,), {})("no host"), Cause.BAD_URI),
    ],
)
def test_an_exception_tells_why(error: Exception, cause: Cause) -> None:
    assert fault_of_error(error).cause is cause


def test_the_reason_is_what_the_operating_system_said() -> None:
    error = chained(
        OfMlflow("API request failed", "INTERNAL_ERROR"), ConnectionRefusedError(111, "Connection refused")
    )
    assert fault_of_error(error).reason == "Connection refused"


def test_the_reason_of_mlflows_own_refusal_is_mlflows() -> None:
    error = chained(OfMlflow("Run 'x' not found", "RESOURCE_DOES_NOT_EXIST"), LookupError("no row"))
    assert fault_of_error(error).reason == "Run 'x' not found"


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("uri", [SERVER, DATABASE])
def test_every_cause_has_a_remedy_without_secrets(cause: Cause, uri: str) -> None:
    text = remedy(Fault("it failed", cause), uri)
    assert len(text) > 20
    assert text.endswith(".")
    assert "secret" not in text


@pytest.mark.parametrize(
    ("reason", "package"),
    [("No module named 'psycopg2'", "psycopg2-binary"), ("No module named 'psycopg'", r"psycopg\[binary\]")],
)
def test_a_missing_driver_is_named_by_the_package_that_has_it(reason: str, package: str) -> None:
    assert package.replace("\\", "") in remedy(Fault(reason, Cause.NO_DRIVER), DATABASE)


@pytest.mark.parametrize("cause", Cause)
def test_only_what_may_pass_is_waited_for(cause: Cause) -> None:
    assert Fault("it failed", cause).may_pass == (cause in {Cause.DOWN, Cause.NOT_READ_BACK})
