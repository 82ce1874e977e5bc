"""What is kept between two requests to a server, for how long, and what an answer may cost."""

from __future__ import annotations

import contextlib
import gzip
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from answering_server import Respond, Server, plain, serving

from fakes import FakeClock
from mlflow_sysmetrics.mlflow_api import rest_connection
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_connection import KEPT_SECONDS, RestConnection
from mlflow_sysmetrics.mlflow_api.runs import Metric, RestRuns
from mlflow_sysmetrics.mlflow_api.secrets import cleaned, remember_credentials
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer, Timeouts

BOUNDS = Timeouts(connect=5, read=15, total=30)
SHORT = Timeouts(connect=5, read=5, total=0.1)
PATH = "/api/2.0/mlflow/runs/log-batch"
TOKENS = [f"token-{number:08}" for number in range(100)]
SOON = 30.0  # longest wait of a test for what comes at once on an idle machine


class Client:
    """A connection whose credentials have a new token each time they are read."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.clock = FakeClock()
        self.asked = 0
        self.connection = RestConnection(self.creds, self.clock.monotonic)

    def creds(self) -> Any:
        from mlflow.utils.rest_utils import MlflowHostCreds

        self.asked += 1
        return MlflowHostCreds(self.url, token=TOKENS[self.asked])

    def post(self, bounds: Timeouts = BOUNDS, **options: Any) -> ServerAnswer:
        return self.connection.send("POST", PATH, bounds, json={"metrics": []}, **options)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    server.answers[PATH] = plain(200, b"{}")
    client = Client(server)
    yield client
    client.connection.close()


@pytest.fixture
def other() -> Iterator[Server]:
    """Another server, or a proxy."""
    with serving() as found:
        yield found


class HeaderPlugin:
    """A request header provider of MLflow, whose token is new each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def in_context(self) -> bool:
        return True

    def request_headers(self) -> dict[str, str]:
        self.asked += 1
        return {"X-Gateway-Key": f"gateway-{TOKENS[self.asked]}"}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> HeaderPlugin:
    from mlflow.tracking.request_header import registry

    plugin = HeaderPlugin()
    known = list(registry._request_header_provider_registry)
    monkeypatch.setattr(registry, "_request_header_provider_registry", [*known, plugin])
    return plugin


def sent(server: Server, name: str) -> list[str | None]:
    return [headers.get(name) for _, _, headers in server.requests]


def test_credentials_and_plugins_are_asked_once_in_half_a_minute_over_one_connection(
    server: Server, client: Client, plugin: HeaderPlugin
) -> None:
    for _ in range(3):
        assert client.post().text == "{}"
        client.clock.move(KEPT_SECONDS / 3)
    assert (client.asked, plugin.asked, server.connections) == (1, 1, 1)
    assert sent(server, "Authorization") == [f"Bearer {TOKENS[1]}"] * 3
    assert sent(server, "X-Gateway-Key") == [f"gateway-{TOKENS[1]}"] * 3


def test_no_token_is_older_than_half_a_minute(server: Server, client: Client, plugin: HeaderPlugin) -> None:
    client.post()
    client.clock.move(KEPT_SECONDS)
    client.post()
    assert sent(server, "Authorization") == [f"Bearer {TOKENS[1]}", f"Bearer {TOKENS[2]}"]
    assert sent(server, "X-Gateway-Key") == [f"gateway-{TOKENS[1]}", f"gateway-{TOKENS[2]}"]
    assert server.connections == 1


def believes_only(token: str) -> Callable[[int], Respond]:
    def refusing(status: int) -> Respond:
        def respond(handler: BaseHTTPRequestHandler) -> None:
            good = handler.headers["Authorization"] == f"Bearer {token}"
            plain(200 if good else status, b"{}")(handler)

        return respond

    return refusing


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 302, 307])
def test_what_is_refused_with_kept_headers_is_sent_again_with_new_ones(
    server: Server, client: Client, status: int
) -> None:
    client.post()
    server.answers[PATH] = believes_only(TOKENS[2])(status)
    assert client.post().status_code == 200
    assert sent(server, "Authorization") == [f"Bearer {TOKENS[number]}" for number in (1, 1, 2)]


@pytest.mark.parametrize("status", [408, 413, 425, 429, 500, 503])
def test_what_has_nothing_to_do_with_headers_is_sent_once(
    server: Server, client: Client, status: int
) -> None:
    client.post()
    server.answers[PATH] = plain(status, b"", Retry_After="7")
    answer = client.post()
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, "7")
    assert len(server.requests) == 2
    server.answers[PATH] = plain(200, b"{}")
    client.post()
    assert sent(server, "Authorization")[-1] == f"Bearer {TOKENS[2]}"


@pytest.mark.parametrize(
    "body", [b'{"error_code": "INTERNAL_ERROR"}', b"<html>Sign in</html>", b'{"run": {}}']
)
def test_after_any_answer_but_success_everything_is_asked_anew(
    server: Server, client: Client, body: bytes
) -> None:
    runs = RestRuns(client.creds, client.url)
    metric = Metric("loss", 0.5, 1, 2)
    with contextlib.closing(runs):
        runs.log_batch("r", [metric], {})
        server.answers[PATH] = plain(200, body)
        with contextlib.suppress(Fault):
            runs.log_batch("r", [metric], {})
        server.answers[PATH] = plain(200, b"{}")
        runs.log_batch("r", [metric], {})
    assert sent(server, "Authorization") == [f"Bearer {TOKENS[number]}" for number in (1, 1, 2)]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_set_later_is_used_within_half_a_minute(
    server: Server, client: Client, other: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other.answers[f"{server.url}{PATH}"] = plain(200, b"{}")
    for variable in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    client.post()
    monkeypatch.setenv(name, other.url)
    client.clock.move(KEPT_SECONDS)
    for _ in range(2):  # prepared anew, and with what was kept
        client.post()
    assert len(server.requests) == 1
    assert [path for _, path, _ in other.requests] == [f"{server.url}{PATH}"] * 2
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client.clock.move(KEPT_SECONDS)
    client.post()
    assert (len(server.requests), len(other.requests)) == (2, 2)


def test_a_proxy_gets_its_password_with_each_request(
    server: Server, client: Client, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.answers[f"{server.url}{PATH}"] = plain(200, b"{}")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", other.url.replace("//", "//me:word@"))
    for _ in range(3):
        client.post()
    assert sent(other, "Proxy-Authorization") == ["Basic bWU6d29yZA=="] * 3


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
def test_a_redirection_to_another_server_takes_no_credentials_along(
    *, server: Server, client: Client, other: Server, plugin: HeaderPlugin, kept: bool, anonymous: bool
) -> None:
    if kept:
        client.post()
    server.answers[PATH] = plain(307, b"", Location=f"{other.url.replace('127.0.0.1', 'localhost')}{PATH}")
    other.answers[PATH] = plain(200, b"{}")
    answer = client.post(anonymous=anonymous)
    assert answer.redirected_to is not None
    assert len(other.requests) == 1
    assert sent(other, "Authorization") == sent(other, "X-Gateway-Key") == [None]
    assert sent(other, "Content-Type") == ["application/json"]
    assert plugin.asked == (0 if anonymous and not kept else 1 if anonymous else 2 if kept else 1)


def test_an_anonymous_request_carries_nothing_of_what_is_kept(
    server: Server, client: Client, plugin: HeaderPlugin
) -> None:
    client.post()
    client.post(anonymous=True)
    assert plugin.asked == 1
    assert sent(server, "Authorization")[1] is None
    assert sent(server, "X-Gateway-Key")[1] is None


def test_a_quoted_token_is_masked_however_many_came_after_it(server: Server, client: Client) -> None:
    client.post()
    for number in range(100):
        remember_credentials(None, None, f"another-secret-{number}")
    server.answers[PATH] = plain(500, f"cannot parse {TOKENS[1]}".encode())
    fault = client.post().fault(client.url)
    assert fault is not None
    assert TOKENS[1] not in fault.reason
    assert TOKENS[1] not in cleaned(f"said {TOKENS[1]}")


def test_a_connection_that_the_server_has_closed_is_opened_again(server: Server, client: Client) -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        plain(200, b"{}")(handler)
        handler.close_connection = True

    server.answers[PATH] = respond
    for _ in range(3):
        client.post()
        kept = client.connection._kept
        assert kept is not None
        from urllib3.util import wait_for_read

        assert wait_for_read(kept.connection.sock, timeout=SOON)
    assert (len(server.requests), server.connections) == (3, 3)
    assert client.asked == 1


def test_a_connection_that_breaks_within_a_request_costs_nothing(server: Server, client: Client) -> None:
    client.post()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        server.answers[PATH] = plain(200, b"{}")
        handler.close_connection = True

    server.answers[PATH] = respond
    assert client.post().status_code == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize("length", ["10", "200000"])
def test_what_is_left_of_an_answer_is_not_taken_for_the_next(
    server: Server, client: Client, length: str
) -> None:
    client.post()
    server.answers[PATH] = plain(200, b"x" * int(length))
    client.post()
    server.answers[PATH] = plain(200, b"{}")
    assert client.post().text == "{}"


def test_closing_closes_the_connection_and_the_next_request_opens_one(server: Server, client: Client) -> None:
    ended = threading.Event()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        plain(200, b"{}")(handler)
        handler.wfile.flush()
        handler.close_connection = True
        assert handler.rfile.read(1) == b""  # until the client closes
        ended.set()

    server.answers[PATH] = respond
    client.post()
    client.connection.close()
    assert ended.wait(SOON)
    server.answers[PATH] = plain(200, b"{}")
    assert client.post().status_code == 200


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MLFLOW_TRACKING_TOKEN": "a-token-of-mine"},
        {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "word"},
        {"NETRC": "netrc"},
        {"NETRC": "netrc", "MLFLOW_TRACKING_TOKEN": "a-token-of-mine"},
        {"MLFLOW_TRACKING_URI": "user"},
        {"MLFLOW_WORKSPACE": "team"},
    ],
    ids=lambda environ: "+".join(environ) or "nothing",
)
def test_the_headers_are_those_of_mlflow(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password of-netrc\n")
    for name, value in environ.items():
        monkeypatch.setenv(name, str(netrc) if value == "netrc" else value)
    url = server.url.replace("//", "//user:word@") if "MLFLOW_TRACKING_URI" in environ else server.url
    server.answers[PATH] = plain(200, b"{}")
    connection = RestConnection(lambda: get_default_host_creds(url))
    http_request(get_default_host_creds(url), PATH, "POST", json={"metrics": []})
    with contextlib.closing(connection):
        for _ in range(2):
            connection.send("POST", PATH, BOUNDS, json={"metrics": []})
    of_mlflow, anew, kept = (
        {name: value for name, value in headers.items() if name != "Content-Length"}
        for _, _, headers in server.requests
    )
    assert of_mlflow == anew == kept
    assert not environ or "MLFLOW_WORKSPACE" in environ or "Authorization" in kept


def trickle_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    trickle(handler)


def trickle_redirection(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 1000000\r\n\r\n")
    trickle(handler)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            threading.Event().wait(0.02)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("respond", [trickle_headers, trickle_redirection])
def test_an_answer_that_trickles_ends_at_its_bound(
    *, server: Server, client: Client, kept: bool, anonymous: bool, respond: Respond
) -> None:
    if kept:
        client.post()
    server.answers[PATH] = respond
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of urllib3, or of requests, or a Fault
        client.post(SHORT, anonymous=anonymous)
    assert fault_of_error(raised.value, client.url).cause is Cause.DOWN
    server.answers[PATH] = plain(200, b"{}")
    assert client.post().text == "{}"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_body_of_a_redirection_is_not_read_to_its_end(
    *, server: Server, client: Client, compressed: bool
) -> None:
    size = 30_000_000
    text = gzip.compress(bytes(size), 1) if compressed else b""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = not compressed
        encoding = b"Content-Encoding: gzip\r\n" if compressed else b""
        length = len(text) or size * 1000
        handler.wfile.write(
            b"HTTP/1.1 307 Found\r\nLocation: /elsewhere\r\n%bContent-Length: %d\r\n\r\n" % (encoding, length)
        )
        with contextlib.suppress(OSError):
            handler.wfile.write(text)
            while not compressed:
                handler.wfile.write(bytes(65_536))

    server.answers[PATH] = respond
    server.answers["/elsewhere"] = plain(200, b"{}")
    client.connection.send("GET", "/health", BOUNDS)  # imports what it needs
    tracemalloc.start()
    try:
        assert client.post().text == "{}"
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()


def test_another_thread_of_greenlets_opens_its_own_connection(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    idents = iter([1, 1, 2])
    monkeypatch.setattr(rest_connection, "patched", lambda: contextlib)
    monkeypatch.setattr(rest_connection, "get_ident", lambda: next(idents))
    for _ in range(3):
        client.post()
    assert server.connections == 2


def test_an_auth_plugin_is_asked_for_each_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_auth import registry
    from mlflow.utils.rest_utils import MlflowHostCreds

    asked: list[str] = []

    def auth(request: Any) -> Any:
        asked.append(request.url)
        request.headers["Authorization"] = f"Bearer {TOKENS[len(asked)]}"
        return request

    monkeypatch.setattr(registry, "fetch_auth", lambda _: auth)
    server.answers[PATH] = plain(200, b"{}")
    connection = RestConnection(lambda: MlflowHostCreds(server.url, auth="of-ours"))
    for _ in range(2):
        connection.send("POST", PATH, BOUNDS, json={})
    assert sent(server, "Authorization") == [f"Bearer {TOKENS[1]}", f"Bearer {TOKENS[2]}"]
