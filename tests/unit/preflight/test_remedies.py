"""Every response and exception maps to a cause, and every cause has a remedy."""

from __future__ import annotations

import ssl
from itertools import pairwise
from types import SimpleNamespace

import pytest
from pytest_mock import MockerFixture

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault, NoIdToken
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_answer, fault_of_error
from mlflow_sysmetrics.mlflow_api.transport import NOT_SENT
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout

SERVER = "https://anna:secret@host:5000"
DATABASE = "postgresql://anna:secret@host/runs"


class OfMlflow(Exception):
    """Has an error code, like MLflow's own exceptions."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.error_code = code


def chained(*errors: Exception) -> Exception:
    """Returns the first of the exceptions, each caused by the next one."""
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
def test_a_response_maps_to_its_cause(status: int, body: str, cause: Cause) -> None:
    fault = fault_of_answer(status, body, {})
    assert fault is not None
    assert fault.cause is cause


def test_a_response_of_mlflow_is_not_a_fault() -> None:
    assert fault_of_answer(200, "{}", {}) is None


def test_retry_after_is_read() -> None:
    fault = fault_of_answer(503, "", {"Retry-After": "12"})
    assert fault is not None
    assert fault.retry_after == 12


def test_an_html_page_is_shown_as_its_text() -> None:
    fault = fault_of_answer(502, "<html><head><style>x</style></head><h1>Bad</h1> <p>Gateway</p></html>", {})
    assert fault is not None
    assert fault.reason == "HTTP 502: Bad Gateway"


def test_a_redirect_is_reported() -> None:
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
def test_an_exception_maps_to_its_cause(error: Exception, cause: Cause) -> None:
    assert fault_of_error(error).cause is cause


def test_the_reason_is_the_message_of_the_operating_system() -> None:
    error = chained(
        OfMlflow("API request failed", "INTERNAL_ERROR"), ConnectionRefusedError(111, "Connection refused")
    )
    assert fault_of_error(error).reason == "Connection refused"


def test_the_reason_of_a_refusal_by_mlflow_is_its_own_message() -> None:
    error = chained(OfMlflow("Run 'x' not found", "RESOURCE_DOES_NOT_EXIST"), LookupError("no row"))
    assert fault_of_error(error).reason == "Run 'x' not found"


class OfRequests(OSError):
    """Holds the request that failed, like the exceptions of requests."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.request = SimpleNamespace(url=url)


def refused_at(url: str) -> Exception:
    return chained(OfRequests(url), ConnectionRefusedError(111, "Connection refused"))


def test_a_redirect_to_a_server_that_is_down_is_reported_without_secrets() -> None:
    fault = fault_of_error(refused_at("http://bob:other@gone:9/health?token=t0ken"), SERVER)
    assert fault.reason == "Connection refused (redirected to http://gone:9/health)"


@pytest.mark.parametrize(
    "uri", [SERVER, f"{SERVER}/prefix", "HTTPS://HOST:5000", "databricks", "plugin://host"]
)
def test_the_server_itself_is_not_reported_as_a_redirect(uri: str) -> None:
    assert fault_of_error(refused_at("https://host:5000/health"), uri).reason == "Connection refused"


def test_the_remedy_for_a_missing_id_token_is_not_shortened() -> None:
    error = NoIdToken("looked everywhere " * 50, "Run: gcloud auth login.")
    assert remedy(fault_of_error(error), SERVER) == "Run: gcloud auth login."


@pytest.mark.parametrize("cause", [Cause.UNAUTHENTICATED, Cause.FORBIDDEN])
def test_without_credentials_the_remedy_lists_ways_to_sign_in(cause: Cause) -> None:
    text = remedy(Fault("HTTP 403", cause), SERVER, "no credentials")
    assert "MLFLOW_TRACKING_USERNAME" in text
    assert "google-id-token" in text
    assert "permission" not in text
    assert "expired" not in text


@pytest.mark.parametrize(
    "sent", ["a bearer token", "no credentials, and ~/.netrc has an entry for this host"]
)
def test_with_credentials_a_403_suggests_asking_for_permission(sent: str) -> None:
    assert "Ask for permission" in remedy(Fault("HTTP 403", Cause.FORBIDDEN), SERVER, sent)


@pytest.mark.parametrize("cause", [Cause.UNAUTHENTICATED, Cause.FORBIDDEN, Cause.DOWN])
@pytest.mark.parametrize("uri", ["databricks", "databricks://profile"])
def test_databricks_has_its_own_remedies(uri: str, cause: Cause) -> None:
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
def test_a_missing_driver_is_named_by_its_package(reason: str, package: str) -> None:
    assert package.replace("\\", "") in remedy(Fault(reason, Cause.NO_DRIVER), DATABASE)


@pytest.mark.parametrize("cause", Cause)
def test_only_temporary_causes_are_retried(cause: Cause) -> None:
    assert Fault("it failed", cause).may_pass == (cause in {Cause.DOWN, Cause.NOT_READ_BACK})


TUNNEL = "Tunnel connection failed: {} "


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(TUNNEL.format("407 Proxy Authentication Required")), Cause.PROXY),
        (OSError(TUNNEL.format("403 Forbidden")), Cause.FORBIDDEN),
        (OSError(TUNNEL.format("502 Bad Gateway")), Cause.DOWN),
        (OSError(TUNNEL.format("503 Service Unavailable")), Cause.DOWN),
    ],
)
def test_a_proxy_that_opens_no_tunnel(error: OSError, cause: Cause) -> None:
    chain = chained(RuntimeError("API request failed"), OSError("Unable to connect to proxy"), error)
    assert fault_of_error(chain, SERVER).cause is cause


PROXY = "http://anna:secret@proxy:3128"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HTTPS_PROXY": PROXY}, "The proxy http://proxy:3128 (HTTPS_PROXY)"),
        ({"https_proxy": "proxy:3128"}, "The proxy proxy:3128 (HTTPS_PROXY)"),
        ({"ALL_PROXY": PROXY}, "The proxy http://proxy:3128 (ALL_PROXY)"),
        ({"HTTP_PROXY": PROXY}, None),  # for another scheme
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "host"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("tunnel", [False, True])
def test_the_proxy_that_requests_go_through_is_named(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], named: str | None, tunnel: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    fault = fault_of_error(
        OSError(TUNNEL.format("403 Forbidden") if tunnel else "Connection refused"), SERVER
    )
    said = remedy(fault, SERVER)
    assert fault.cause is (Cause.FORBIDDEN if tunnel else Cause.DOWN)
    assert "secret" not in said
    assert "MLFLOW_TRACKING" not in said
    assert (named in said) if named else ("The proxy does not" in said if tunnel else "proxy" not in said)
    assert ("NO_PROXY" in said) == (named is not None or tunnel)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (
            "what the plugin 'slow' gave (MLFLOW_TRACKING_AUTH)",
            "Check the plugin 'slow' (MLFLOW_TRACKING_AUTH): ",
        ),
        ("a bearer token (MLFLOW_TRACKING_TOKEN)", "Check what gives the credentials"),
    ],
)
def test_credentials_that_are_late_are_not_the_servers_fault(sent: str, named: str) -> None:
    said = remedy(Fault(f"{NOT_SENT} within 30 s", Cause.DOWN), SERVER, sent)
    assert said.startswith(named)
    assert "server is up" not in said


@pytest.mark.parametrize("installed", [True, False])
def test_another_driver_that_is_installed_is_named(mocker: MockerFixture, installed: bool) -> None:
    mocker.patch(
        "mlflow_sysmetrics.preflight.remedies.find_spec", return_value=object() if installed else None
    )
    fault = fault_of_error(ModuleNotFoundError("No module named 'psycopg'"), DATABASE)
    said = remedy(fault, DATABASE)
    assert "pip install 'psycopg[binary]'" in said
    assert ("postgresql+psycopg2://" in said) == installed


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("boto3", "pip install 'boto3'"),
        ("google.cloud.storage", "pip install 'google-cloud-storage'"),
        ("google", "pip install 'google-cloud-storage'"),
        ("azure.storage.blob", "pip install 'azure-storage-blob' 'azure-identity'."),
        ("azure.storage.filedatalake", "azure-storage-file-datalake"),
        ("pyarrow", "pip install 'pyarrow'"),
    ],
)
def test_the_library_of_a_store_is_named(missing: str, command: str) -> None:
    fault = fault_of_error(ModuleNotFoundError(f"No module named '{missing}'"), SERVER)
    assert command in remedy(fault, SERVER)


@pytest.mark.parametrize("cause", Cause)
def test_no_remedy_names_an_argument_that_only_preflight_has(cause: Cause) -> None:
    """`check`, `doctor` and `server` show remedies, too."""
    for uri in (SERVER, DATABASE, "databricks"):
        text = remedy(Fault("no", cause), uri)
        assert "max_retries" not in text
        assert "deadline" not in text
