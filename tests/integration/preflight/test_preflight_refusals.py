"""Permanent failures are raised at once, with what to do about them."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow_double import API, Answer, Double, RunPreflight, error

from mlflow_sysmetrics.errors import (
    AuthenticationError,
    ExperimentError,
    PreflightError,
    ServerUnreachableError,
    TrackingURIError,
)

pytest_plugins = ["preflight_fixtures"]
CLOSING_SENTENCE = "Training does not proceed without experiment tracking."
INVALID_HOST = Answer(403, "Invalid Host header - possible DNS rebinding attack detected")


@pytest.mark.parametrize(
    ("path", "answer", "kind", "remedy"),
    [
        ("/health", Answer(401), AuthenticationError, "MLFLOW_TRACKING_TOKEN"),
        ("experiments/get-by-name", Answer(401, "Unauthorized"), AuthenticationError, "no credentials"),
        (
            "experiments/get-by-name",
            error(403, "PERMISSION_DENIED", "no"),
            AuthenticationError,
            "google-id-token",
        ),
        ("/health", INVALID_HOST, AuthenticationError, "MLFLOW_SERVER_ALLOWED_HOSTS"),
        ("experiments/get-by-name", INVALID_HOST, AuthenticationError, "MLFLOW_SERVER_ALLOWED_HOSTS"),
        ("", Answer(404, "<h1>Not Found</h1>"), ServerUnreachableError, "--static-prefix"),
        ("experiments/get-by-name", Answer(200, "<h1>Sign in</h1>"), ServerUnreachableError, "no MLflow"),
        ("/health", Answer(418, "I am a teapot"), ServerUnreachableError, "no MLflow"),
        (
            "experiments/create",
            error(400, "INVALID_PARAMETER_VALUE", "bad name"),
            ExperimentError,
            "bad name",
        ),
    ],
)
def test_a_refusal_is_raised_at_the_first_response_with_its_remedy(  # noqa: PLR0917 - a table
    double: Double,
    run_preflight: RunPreflight,
    path: str,
    answer: Answer,
    kind: type[PreflightError],
    remedy: str,
) -> None:
    double.answers(path, answer)
    with pytest.raises(kind) as raised:
        run_preflight(tracking_uri=double.url)
    assert type(raised.value) is kind
    assert remedy in str(raised.value)
    assert str(raised.value).endswith(CLOSING_SENTENCE)
    assert raised.value.status_code == answer.status
    assert not any("next one in" in str(one.error) for one in raised.value.attempts)


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        (None, "MLFLOW_TRACKING_URI"),
        ("", "MLFLOW_TRACKING_URI"),
        ("http://", "https://host:port"),
        ("http:///path", "https://host:port"),
        ("http://host:99999", "https://host:port"),
        ("http://host:no", "https://host:port"),
        ("http://host:5000\n", "line break"),
        (" HTTP://host:5000", "contains a space"),
        ("http://host/?a=b", "query"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("htp://host", "Write http://host."),
        ("https//host", "Write https://host."),
        ("http:/host", "Write http://host."),
        ("http:host:5000/ml", "Write http://host:5000/ml."),
        ("https;//host", "Write https://host."),
        ("databricks://", "Write databricks, or databricks://profile."),
        ("postgres://anna:pw@host/runs", "Write postgresql://"),
        ("postgres+psycopg2://host/runs", "Write postgresql://host/runs"),
        ("mariadb://host/runs", "mysql+pymysql://host/runs"),
        ("sqlite3:///runs.db", "sqlite:///runs.db"),
        ("gs://bucket/runs", "--artifacts-destination gs://bucket/runs"),
        ("databricks-uc", "set_registry_uri"),
        ("sqlite://", "sqlite:///"),
        ("sqlite:///:memory:", "sqlite:///"),
    ],
)
def test_an_invalid_tracking_uri_is_rejected_before_any_request(
    run_preflight: RunPreflight, uri: str | None, remedy: str
) -> None:
    with pytest.raises(TrackingURIError) as raised:
        run_preflight(tracking_uri=uri)
    assert remedy in str(raised.value)
    assert str(raised.value).endswith(CLOSING_SENTENCE)
    assert (raised.value.step, raised.value.attempts) == (0, ())


def test_a_redirection_to_https_names_the_address_to_write(
    double: Double, run_preflight: RunPreflight
) -> None:
    """A POST that is redirected with 301 arrives as a GET, which the server answers as another request."""
    for path in ("experiments/create", "runs/create"):
        target = f"{double.url}/tls{API}{path}"
        double.answers(f"/tls{API}{path}", Answer(405, "Method Not Allowed"))
        double.answers(path, Answer(301, "", {"Location": target}))
    with pytest.raises(PreflightError, match=f"Set the tracking URI to {double.url}/tls, to which") as raised:
        run_preflight(tracking_uri=double.url)
    assert double.count("runs/create") + double.count("experiments/create") <= 2
    assert len(raised.value.attempts) <= 4


def test_airplay_on_the_port_is_named(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("", Answer(403, "", {"Server": "AirTunes/775.3.1"}))
    with pytest.raises(ServerUnreachableError, match=r"AirPlay Receiver answers at this port.*--port 5001"):
        run_preflight(tracking_uri=double.url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_password_is_named_at_once(
    double: Double, run_preflight: RunPreflight, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    double.answers("", Answer(407, "", {"Proxy-Authenticate": 'Basic realm="corp"'}))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, double.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with pytest.raises(AuthenticationError, match=r"A proxy .* into HTTP_PROXY and HTTPS_PROXY") as raised:
        run_preflight(tracking_uri=f"{scheme}://mlflow.example.org")
    assert "MLFLOW_TRACKING_USERNAME" not in str(raised.value)
    assert len(raised.value.attempts) == 1


def test_a_deleted_experiment_is_rejected_with_the_command_that_restores_it(
    double: Double, run_preflight: RunPreflight
) -> None:
    number = double.make_experiment("ships", "deleted")
    with pytest.raises(ExperimentError, match=f"mlflow experiments restore -x {number}"):
        run_preflight(tracking_uri=double.url)


def test_the_kind_of_credentials_is_named(
    double: Double, run_preflight: RunPreflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-one")
    double.answers("experiments/get-by-name", Answer(401))
    with pytest.raises(AuthenticationError, match="basic authentication"):
        run_preflight(tracking_uri=double.url)


def test_an_mlflow_server_without_health_is_accepted(double: Double, run_preflight: RunPreflight) -> None:
    double.answers("/health", Answer(404))
    assert run_preflight(tracking_uri=double.url).run_id in double.runs
    assert ("GET", f"{API}experiments/get") in double.requests


@pytest.fixture
def bad_tls(tmp_path: Path) -> Iterator[str]:
    """An https server with a self-signed certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - the client hangs up, as it should
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_untrusted_certificate_is_rejected_at_once(bad_tls: str, run_preflight: RunPreflight) -> None:
    with pytest.raises(ServerUnreachableError, match="MLFLOW_TRACKING_SERVER_CERT_PATH") as raised:
        run_preflight(tracking_uri=bad_tls)
    assert len(raised.value.attempts) == 1


def test_https_to_an_http_server_is_recognised(double: Double, run_preflight: RunPreflight) -> None:
    with pytest.raises(ServerUnreachableError, match=f"write {double.url}"):
        run_preflight(tracking_uri=double.url.replace("http://", "https://"))


class _TeamKey:
    """A plugin for headers."""

    def in_context(self) -> bool:
        return True

    def request_headers(self) -> dict[str, str]:
        return {"X-Team-Key": "s3cr3t-of-a-plugin"}


def test_headers_that_a_server_quotes_are_in_no_message(
    double: Double, run_preflight: RunPreflight, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking.request_header import registry

    def quote(_path: str) -> None:
        sent = double.headers
        pair = base64.b64decode(sent["Authorization"].split()[1]).decode()
        quoted = f"{sent['X-Team-Key']} {sent['Authorization']} <{sent['Authorization'].split()[1]}> {pair}"
        double.answers("/health", Answer(401, f"no such account: {quoted}"), times=1)

    double.on_request = quote
    plugins = registry._request_header_provider_registry
    monkeypatch.setattr(plugins, "_registry", [*plugins._registry, _TeamKey()])
    credentials = tmp_path / ".mlflow" / "credentials"
    credentials.parent.mkdir()
    credentials.write_text(
        "[mlflow]\nmlflow_tracking_username = anna\nmlflow_tracking_password = s3cr3t-pw\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AuthenticationError, match="no such account") as raised:
        run_preflight(tracking_uri=double.url)
    told = str(raised.value) + (files / "mlflow_status.json").read_text()
    assert "s3cr3t" not in told
    assert double.headers["Authorization"].split()[1] not in told
