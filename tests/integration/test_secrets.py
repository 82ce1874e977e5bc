"""No secret leaves the package: every kind of secret on every output.

The tracking server rejects each request and quotes everything that it received, without the words that mark
a secret.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import mlflow
import pytest
from click.testing import CliRunner

from fakes import STARTED_AT, scripted
from gone import of_a_process_that_is_gone
from mlflow_sysmetrics.cli import main
from mlflow_sysmetrics.daemon.daemon import Daemon
from mlflow_sysmetrics.daemon.journal.journal import Journal
from mlflow_sysmetrics.errors import PreflightError, PromotionError
from mlflow_sysmetrics.mlflow_api import active_runs, secrets
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.tracking_uris import lasting
from mlflow_sysmetrics.preflight.api import preflight, tracked_run
from mlflow_sysmetrics.preflight.verification import Verification
from mlflow_sysmetrics.server.launch import log_tail
from mlflow_sysmetrics.settings import Settings
from watching import eventually

RUN = "f" * 32
SECRET = "hush-S3CR3T-w0rd"
SPECIAL = "hush/S3CR3T?w0rd#+%: é"  # every character that ends a part of a URI
MARKUP = "hush<S3CR3T>&'w0rd\""
USER = "someone"


class Server(ThreadingHTTPServer):
    """Rejects every request and quotes it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = 0


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_GET(self) -> None:
        """Answers any method."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        quoted = [self.headers.get("X-Team") or "", self.path]
        for header in ("Authorization", "Proxy-Authorization"):
            sent = (self.headers.get(header) or "").partition(" ")[2]
            quoted.append(sent)
            with suppress(ValueError):
                decoded = base64.b64decode(sent, validate=True)
                quoted += [*decoded.decode("latin-1").split(":", 1), *decoded.decode("utf-8").split(":", 1)]
        # As a page of HTML, a URI and PHP's JSON would write the same.
        written = [form for one in quoted for form in (one, escape(one), quote(one), one.replace("/", r"\/"))]
        message = " | ".join(dict.fromkeys(filter(None, written)))
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": message}).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@dataclass
class Kind:
    """One kind of secret.

    Attributes:
        uri: the tracking URI; HOST stands for host and port of the server.
        environ: variables.
        header: of a request-header plugin.
        token: of an auth plugin.
        secret: the text that must not be shown, in any of its forms.
        arrives: whether the server gets a request.
    """

    uri: str = "http://HOST"
    environ: dict[str, str] = field(default_factory=dict)
    header: str | None = None
    token: str | None = None
    secret: str = SECRET
    arrives: bool = True


KINDS = {
    "token": Kind(environ={"MLFLOW_TRACKING_TOKEN": SECRET}),
    "token-with-newline": Kind(environ={"MLFLOW_TRACKING_TOKEN": f"{SECRET}\n"}, arrives=False),
    "user-and-password": Kind(
        environ={"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": SPECIAL}, secret=SPECIAL
    ),
    "user-that-is-a-token": Kind(
        environ={"MLFLOW_TRACKING_USERNAME": SECRET, "MLFLOW_TRACKING_PASSWORD": "x123"}
    ),
    "password-with-signs-of-html": Kind(
        environ={"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": MARKUP}, secret=MARKUP
    ),
    "token-with-percent": Kind(environ={"MLFLOW_TRACKING_TOKEN": f"{SECRET}%2F1"}, secret=f"{SECRET}%2F1"),
    "token-that-is-not-text": Kind(environ={"MLFLOW_TRACKING_TOKEN": f"{SECRET}\udcff"}, arrives=False),
    "proxy": Kind("http://mlflow.invalid", environ={"http_proxy": f"http://{USER}:{SECRET}@HOST"}),
    "uri": Kind(f"http://{USER}:{SECRET}@HOST"),
    "uri-with-raw-signs": Kind(f"http://{USER}:{SECRET}!$&'()*,;=@HOST", secret=f"{SECRET}!$&'()*,;="),
    "uri-percent-encoded": Kind(f"http://{USER}:{quote(SPECIAL, safe='')}@HOST", secret=SPECIAL),
    "uri-percent-encoded-in-lower-case": Kind(
        f"http://{USER}:{quote(SPECIAL, safe='').replace('%2F', '%2f').replace('%3F', '%3f')}@HOST",
        secret=SPECIAL,
    ),
    "uri-with-slashes": Kind(f"http://{USER}://{SECRET}@HOST", arrives=False),
    "uri-without-scheme": Kind(f"//{USER}:{SECRET}@HOST", arrives=False),
    "uri-with-user-only": Kind(f"http://{SECRET}@HOST"),
    "query": Kind(f"http://HOST/?token={SECRET}", arrives=False),
    "header-plugin": Kind(header=SECRET),
    "auth-plugin": Kind(environ={"MLFLOW_TRACKING_AUTH": "of-a-test"}, token=SECRET),
}


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind of secret, in force; nothing that another test has sent is known."""
    found = KINDS[request.param]
    monkeypatch.setattr(secrets, "_sent", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value.replace("HOST", f"127.0.0.1:{server.server_port}"))
    if found.header is not None:
        header_plugin(found.header, monkeypatch)
    if found.token is not None:
        auth_plugin(found.token, monkeypatch)
    if found.uri.startswith("//") and TAKES_DIRECTORIES:
        monkeypatch.setattr("mlflow.store.tracking.file_store.mkdir", refuse_directory)
    return found


def refuse_directory(root: str, *_: object) -> None:
    """Does for root what the system does for other users, who may not write there."""
    raise PermissionError(errno.EACCES, "Permission denied", root)


def header_plugin(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_header import registry

    provider = SimpleNamespace(in_context=lambda: True, request_headers=lambda: {"X-Team": value})
    found = registry._request_header_provider_registry
    monkeypatch.setattr(found, "_registry", [*found._registry, provider])


def auth_plugin(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_auth import registry

    def authorize(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    provider = SimpleNamespace(get_name=lambda: "of-a-test", get_auth=lambda: authorize)
    found = registry._request_auth_provider_registry
    monkeypatch.setattr(found, "_registry", [*found._registry, provider])


@dataclass
class Place:
    """The context of an output."""

    uri: str
    directory: Path
    log: pytest.LogCaptureFixture
    monkeypatch: pytest.MonkeyPatch

    def orphan(self) -> Path:
        """Returns the journal of a process that has exited; the journal names the server."""
        journal = Journal.create(self.directory / "spool", 10**8)
        number = journal.register(RUN, lasting(self.uri), STARTED_AT)
        journal.append(number, 0, STARTED_AT, {"system/level": 1.0})
        journal.close(delete=False)
        return of_a_process_that_is_gone(journal.path)

    def command(self, *arguments: str) -> str:
        """Returns everything that a command prints."""
        done = CliRunner().invoke(main, list(arguments))
        return f"{done.output}{done.stderr}{done.exception!r}"

    def options(self) -> list[str]:
        return ["--dir", str(self.directory / "spool"), "--tracking-uri", self.uri]


def of_preflight(place: Place) -> str:
    """The exception, the attempts, the status files, and the log."""
    with pytest.raises(PreflightError) as raised:
        preflight(
            "ships",
            tracking_uri=place.uri,
            max_retries=2,
            backoff=(0.01,),
            timeout=5,
            status_path=place.directory / "status",
        )
    error = raised.value
    files = [path.read_text() for path in (place.directory / "status").rglob("*") if path.is_file()]
    assert files
    return f"{error} {error!r} {error.tracking_uri} {error.attempts} {printed(error)} {files}"


def printed(error: BaseException) -> str:
    """Returns what the interpreter prints of an exception that ends a program: causes, contexts and notes."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def of_tracked_run(place: Place) -> str:
    """The exception, as the interpreter prints it."""
    with (
        pytest.raises(PreflightError) as raised,
        tracked_run("ships", tracking_uri=place.uri, max_retries=1, timeout=5, status_path=place.directory),
    ):
        raise AssertionError("the server refuses every request")
    return printed(raised.value)


def of_daemon(place: Place) -> str:
    """The status, its repr, the log, and the journal on disk."""
    settings = Settings(
        sampling_interval=60,
        send_interval=0.1,
        flush_timeout=0.5,
        spool_dir=str(place.directory / "spool"),
    )
    daemon = Daemon(settings, collectors=[scripted(level=1)])
    series = daemon.attach(RUN, place.uri, settings, started_at=None)
    eventually(lambda: daemon.status().last_error)
    daemon.detach(series, 0.1)
    status = daemon.status()
    journals = [path.read_text() for path in (place.directory / "spool").rglob("*.jsonl")]
    assert journals
    eventually(lambda: "system metrics" in place.log.text)
    return f"{status} {status!r} {status.last_error} {journals}"


def of_sync(place: Place) -> str:
    place.orphan()
    return place.command("sync", *place.options(), "--wait", "0.01s")


def of_reap(place: Place) -> str:
    place.orphan()
    plain = place.command("reap", *place.options(), "--older-than", "1s", "--apply")
    return plain + place.command("reap", *place.options(), "--older-than", "1s", "--json")


def of_status(place: Place) -> str:
    path = place.orphan()
    found = place.command("status", "--dir", str(path.parent))
    return found + place.command("status", "--dir", str(path.parent), "--json") + path.read_text()


def of_check(place: Place) -> str:
    plain = place.command("check", "--tracking-uri", place.uri, "--timeout", "5s")
    return plain + place.command("check", "--tracking-uri", place.uri, "--timeout", "5s", "--json")


def of_doctor(place: Place) -> str:
    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    return place.command("doctor") + place.command("doctor", "--json")


def of_verification(place: Place) -> str:
    found = Verification(place.uri, timeout=5)
    return f"{list(found.steps())} {found.clean_up()}"


def of_hpo(place: Place) -> str:
    """The warning of a study, and the tags and artifacts of an exception on the run of a trial."""
    pytest.importorskip("optuna", reason="studies need Optuna")
    from mlflow import MlflowClient

    from mlflow_sysmetrics.training.hpo import outcome
    from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded, StoreCalls

    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    with pytest.raises(NotRecorded):
        StoreCalls(place.uri).make(lambda: MlflowClient(place.uri).get_run(RUN))
    assert any(record.levelno == logging.WARNING for record in place.log.records)
    try:
        MlflowClient(place.uri).get_run(RUN)
    except Exception as error:  # noqa: BLE001 - as a trial's objective may raise it
        return repr(outcome.raised(error, 1.0))
    raise AssertionError("the server refuses every request")


def of_registry(place: Place) -> str:
    """The error of a version that is registered and not promoted, as the interpreter prints it."""
    from mlflow import MlflowClient

    from mlflow_sysmetrics.training.registry import registration
    from mlflow_sysmetrics.training.registry.names import Target

    def failing(*_: object) -> None:
        MlflowClient(place.uri).get_run(RUN)

    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    place.monkeypatch.setattr(registration, "link_to_version", failing)
    entry: Any = SimpleNamespace(model_name="ships")
    with pytest.raises(PromotionError) as raised:
        registration._promoted(None, None, entry, "1", Target("Production", "champion", True))  # type: ignore[arg-type]
    return printed(raised.value)


def of_server_log(place: Place) -> str:
    """The end of the log of a server, which may print what it was started with and asked."""
    path = place.directory / "log"
    with suppress(Fault):
        RestStore(place.uri).run(RUN, 30)
    ours = {name: value for name, value in os.environ.items() if name.lower().startswith(("mlflow", "http"))}
    path.write_text(f"{ours} {place.uri}", "utf-8", "replace")
    return log_tail(path, 0, place.uri)


def of_server_doctor(place: Place) -> str:
    closed = re.sub(r"127\.0\.0\.1:\d+|mlflow\.invalid", "127.0.0.1:9", place.uri)
    place.monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", closed.replace("http:", "postgresql:"))
    return place.command("server", "doctor") + place.command("server", "doctor", "--json")


def of_monitor(place: Place) -> str:
    """The warning about a run whose metrics cannot be started."""
    import mlflow

    from mlflow_sysmetrics import monitor
    from mlflow_sysmetrics.daemon import process

    def failing(*_: object, **__: object) -> None:
        mlflow.MlflowClient(place.uri).get_run(RUN)

    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    place.monkeypatch.setattr(process, "prepare", failing)
    place.monkeypatch.setattr(monitor, "_warned", set())
    monitor.SystemMetricsMonitor(RUN).start()
    assert "System metrics are off" in place.log.text
    return ""


def of_active_runs(place: Place) -> str:
    """The warning about a run inside another that cannot be ended."""
    import mlflow

    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)

    def failing(_: str) -> None:
        mlflow.MlflowClient(place.uri).get_run(RUN)

    place.monkeypatch.setattr(mlflow, "end_run", failing)
    active_runs._end_inner_run("inner", "FAILED")
    assert "may be left RUNNING" in place.log.text
    return ""


def of_tags(place: Place) -> str:
    from mlflow_sysmetrics.providers import SysMetricsRunContextProvider

    place.monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    return repr(SysMetricsRunContextProvider().tags())


WAYS: dict[str, Callable[[Place], str]] = {
    "preflight": of_preflight,
    "daemon": of_daemon,
    "sync": of_sync,
    "reap": of_reap,
    "status": of_status,
    "check": of_check,
    "doctor": of_doctor,
    "verification": of_verification,
    "hpo": of_hpo,
    "registry": of_registry,
    "monitor": of_monitor,
    "active-runs": of_active_runs,
    "tags": of_tags,
    "tracked-run": of_tracked_run,
    "server-log": of_server_log,
    "server-doctor": of_server_doctor,
}
# An MLflow that takes //... for a directory, below the root.
TAKES_DIRECTORIES = tuple(int(part) for part in mlflow.__version__.split(".")[:2]) < (3, 13)
SILENT = {"status", "tags", "server-doctor"}  # they send no request


def forms(secret: str) -> set[str]:
    """Returns the forms in which a text may contain a secret."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote(secret, safe="").lower(),
        escape(secret),
        json.dumps(secret)[1:-1],
        base64.b64encode(f"{USER}:{secret}".encode()).decode(),
        base64.b64encode(secret.encode()).decode(),
    }


@pytest.mark.parametrize("way", WAYS)
def test_no_output_shows_a_secret(  # noqa: PLR0917 - pytest's fixtures
    way: str,
    kind: Kind,
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG, logger="mlflow_sysmetrics")
    uri = kind.uri.replace("HOST", f"127.0.0.1:{server.server_port}")
    shown = WAYS[way](Place(uri, tmp_path, caplog, monkeypatch))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("mlflow_sysmetrics")]
    warned = [str(one.message) for one in recwarn.list]
    text = f"{shown} {ours} {warned}"
    if kind.arrives and way not in SILENT:
        assert server.asked, text
    for form in forms(kind.secret):
        assert form not in text
        assert form not in text.replace("\\\\", "\\")
    assert "S3CR3T" not in text
