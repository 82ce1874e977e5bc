"""What came back is understood, and each has something to do about it."""

from __future__ import annotations

import ssl
from itertools import pairwise
from types import SimpleNamespace

import pytest

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault, NoIdToken
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_answer, fault_of_error
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout

SERVER = "https://anna:secret@host:5000"
DATABASE = "postgresql://anna:secret@host/runs"


class OfMlflow(Exception):
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
        (CallTimeout(), Cause.DOWN),
        (ConnectionRefusedError(111, "Connection refused"), Cause.DOWN),
        (chained(OSError("x"), ssl.SSLCertVerificationError(1, "self-signed certificate")), Cause.TLS),
        (ssl.SSLEOFError(8, "EOF occurred"), Cause.DOWN),
        (ModuleNotFoundError("No module named 'psycopg2'"), Cause.NO_DRIVER),
        (RuntimeError('FATAL: password authentication failed for user "anna"'), Cause.UNAUTHENTICATED),
        (RuntimeError('FATAL: Peer authentication failed for user "anna"'), Cause.UNAUTHENTICATED),
        (RuntimeError('FATAL: role "anna" does not exist'), Cause.UNAUTHENTICATED),
        (RuntimeError('FATAL: role "anna" is not permitted to log in'), Cause.UNAUTHENTICATED),
        (RuntimeError("fe_sendauth: no password supplied"), Cause.UNAUTHENTICATED),
        (
            OfMlflow("Reading Databricks credential configuration failed", "INTERNAL_ERROR"),
            Cause.UNAUTHENTICATED,
        ),
        (ValueError("default auth: cannot configure default credentials"), Cause.UNAUTHENTICATED),
        (type("InvalidConfigurationError", (RuntimeError,), {})("no profile"), Cause.UNAUTHENTICATED),
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


class OfRequests(OSError):
    """Knows the request that failed, as exceptions of requests do."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.request = SimpleNamespace(url=url)


def refused_at(url: str) -> Exception:
    return chained(OfRequests(url), ConnectionRefusedError(111, "Connection refused"))


def test_a_redirection_to_a_server_that_is_down_is_said_without_secrets() -> None:
    fault = fault_of_error(refused_at("http://bob:other@gone:9/health?token=t0ken"), SERVER)
    assert fault.reason == "Connection refused (redirected to http://gone:9/health)"


@pytest.mark.parametrize(
    "uri", [SERVER, f"{SERVER}/prefix", "HTTPS://HOST:5000", "databricks", "plugin://host"]
)
def test_a_server_that_is_down_itself_is_no_redirection(uri: str) -> None:
    assert fault_of_error(refused_at("https://host:5000/health"), uri).reason == "Connection refused"


def test_what_to_do_about_a_missing_id_token_is_said_in_full() -> None:
    error = NoIdToken("looked everywhere " * 50, "Run: gcloud auth login.")
    assert remedy(fault_of_error(error), SERVER) == "Run: gcloud auth login."


@pytest.mark.parametrize("cause", [Cause.UNAUTHENTICATED, Cause.FORBIDDEN])
def test_who_sent_no_credentials_hears_which_there_are(cause: Cause) -> None:
    text = remedy(Fault("HTTP 403", cause), SERVER, "no credentials")
    assert "MLFLOW_TRACKING_USERNAME" in text
    assert "google-id-token" in text
    assert "permission" not in text
    assert "expired" not in text


@pytest.mark.parametrize(
    "sent", ["a bearer token", "no credentials, and ~/.netrc has an entry for this host"]
)
def test_who_is_known_and_refused_hears_of_permissions(sent: str) -> None:
    assert "Ask for permission" in remedy(Fault("HTTP 403", Cause.FORBIDDEN), SERVER, sent)


@pytest.mark.parametrize("cause", [Cause.UNAUTHENTICATED, Cause.FORBIDDEN, Cause.DOWN])
@pytest.mark.parametrize("uri", ["databricks", "databricks://profile"])
def test_databricks_has_remedies_of_its_own(uri: str, cause: Cause) -> None:
    text = remedy(Fault("it failed", cause), uri)
    assert "DATABRICKS_HOST" in text
    assert "curl" not in text
    assert "MLFLOW_TRACKING" not in text


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("uri", [SERVER, DATABASE, "databricks"])
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
