"""Requests on a server that a test controls: timeouts, sizes, redirections, credentials."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
from answering_server import Respond, Server, plain

from mlflow_sysmetrics.mlflow_api import transport
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.transport import Timeouts, send
from mlflow_sysmetrics.runtime.native import Event

BOUNDS = Timeouts(connect=5, read=15, total=30)
PATH = "/api/2.0/mlflow/runs/log-batch"


def creds(server: Server, **more: Any) -> Any:
    from mlflow.utils.rest_utils import MlflowHostCreds

    return MlflowHostCreds(server.url, **more)


def post(server: Server, bounds: Timeouts = BOUNDS, **options: Any) -> transport.ServerAnswer:
    return send(creds(server, **options.pop("creds", {})), "POST", PATH, bounds, json={}, **options)


def test_an_answer_is_read_in_full_and_the_connection_is_used_again(server: Server) -> None:
    server.answers[PATH] = plain(200, b'{"x": "' + b"y" * 200_000 + b'"}')
    assert [len(post(server).text) for _ in range(3)] == [200_009] * 3
    assert server.connections == 1


@pytest.mark.heavy
def test_a_slow_answer_ends_at_its_bound(server: Server) -> None:
    """Each byte arrives within the read timeout, so only the total can end it."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.02)

    server.answers[PATH] = drip
    began = time.monotonic()
    with pytest.raises(Fault, match=r"the answer arrives too slowly: not complete after 0\.2 s") as raised:
        post(server, Timeouts(connect=5, read=5, total=0.2))
    assert time.monotonic() - began < 2
    assert raised.value.cause is Cause.DOWN


def test_a_huge_error_page_is_not_read_to_its_end(server: Server) -> None:
    server.answers[PATH] = plain(502, b"<p>Bad gateway</p>" + b" " * 3_000_000)
    answer = post(server)
    assert len(answer.text) == 64_000
    assert answer.text.startswith("<p>Bad gateway</p>")


class Response:
    """A response of requests on a urllib3 without `read1`."""

    status_code = 200

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.closed = False

    def iter_content(self, _: int) -> list[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed = True


def test_without_read1_a_slow_answer_ends_too() -> None:
    answer = Response([b"{", b"}"])
    with pytest.raises(Fault, match="arrives too slowly"):
        transport.text_of(answer, began=0.0, seconds=-1.0)
    assert answer.closed


def test_without_read1_an_answer_is_read_to_its_end() -> None:
    assert transport.text_of(Response([b"{", b"}"]), began=0.0, seconds=float("inf")) == "{}"


def test_connecting_and_reading_have_separate_timeouts() -> None:
    when = transport._Sending(BOUNDS, None)
    assert transport._timeouts(object(), BOUNDS, when) == {"timeout": (5, 15)}


def test_the_databricks_sdk_takes_one_number() -> None:
    of_databricks = SimpleNamespace(use_databricks_sdk=True)
    ready = Event()
    when = transport._Sending(BOUNDS, ready)
    assert transport._timeouts(of_databricks, BOUNDS, when) == {"timeout": 15, "retry_timeout_seconds": 15}
    assert ready.is_set()


PLUGINS = ["get_auth", "sign", "headers"]


@pytest.fixture(params=PLUGINS)
def slow_plugin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A plugin that answers when the event is set: one for credentials, early or late, or for headers."""
    from mlflow.tracking.request_auth import registry as auths
    from mlflow.tracking.request_header import registry as headers

    may_answer = threading.Event()

    def slow(at: str, result: Any) -> Any:
        return (at != request.param or may_answer.wait(30)) and result

    auth = SimpleNamespace(
        get_name=lambda: "slow", get_auth=lambda: slow("get_auth", lambda sent: slow("sign", sent))
    )
    header = SimpleNamespace(in_context=lambda: True, request_headers=lambda: slow("headers", {"X-A": "1"}))
    for registry, plugin in (
        (auths._request_auth_provider_registry, auth),
        (headers._request_header_provider_registry, header),
    ):
        monkeypatch.setattr(registry, "_registry", [*registry._registry, plugin])
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "slow")
    yield may_answer
    may_answer.set()


def test_the_time_of_a_plugin_is_not_the_servers(server: Server, slow_plugin: threading.Event) -> None:
    server.answers[PATH] = plain(200, b"{}")
    took: list[float] = []
    threading.Timer(0.15, slow_plugin.set).start()
    preparation = transport.Preparation(30, took.append)
    # Well over what a server on loopback needs, and less than the plugin takes where it is charged to it.
    answer = transport.request(server.url, "POST", PATH, 0.1, json={}, preparation=preparation)
    assert answer.status_code == 200
    assert took[0] > 0.1


def test_a_plugin_that_hangs_is_blamed_and_the_server_is_not(
    server: Server, slow_plugin: threading.Event
) -> None:
    del slow_plugin
    preparation = transport.Preparation(0.05, lambda _: pytest.fail("nothing was sent"))
    with pytest.raises(
        Fault, match=r"^no request was sent, because the credentials were not ready within 0\.0"
    ):
        transport.request(server.url, "POST", PATH, 20, json={}, preparation=preparation)
    with pytest.raises(Fault, match=r"^no request was sent"):
        transport.request(server.url, "POST", PATH, 0.05, json={})
    assert not server.requests


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_request_is_sent_once(server: Server, status: int) -> None:
    server.answers[PATH] = plain(status, b"")
    assert post(server).status_code == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "location", "kept"), [(307, PATH, True), (308, PATH, True)])
def test_a_redirection_that_keeps_method_and_path_is_followed(
    server: Server, status: int, location: str, *, kept: bool
) -> None:
    target = f"/prefix{location}"
    server.answers[PATH] = plain(status, b"", Location=target)
    server.answers[target] = plain(200, b"{}")
    answer = post(server)
    assert answer.is_to_request is kept
    assert answer.redirected_to == f"{server.url}{target}"


@pytest.mark.parametrize(
    ("status", "target"), [(301, f"/x{PATH}"), (302, f"/x{PATH}"), (303, f"/x{PATH}"), (307, "/login")]
)
def test_a_redirection_to_another_request_is_recognised(server: Server, status: int, target: str) -> None:
    """A POST that is redirected with 301 to 303 arrives as a GET: its points never arrive."""
    server.answers[PATH] = plain(status, b"", Location=target)
    server.answers[target] = plain(200, b"{}")
    answer = post(server)
    assert (answer.status_code, answer.text) == (200, "{}")
    assert not answer.is_to_request


def test_an_anonymous_request_carries_no_credentials(server: Server) -> None:
    server.answers[PATH] = plain(200, b"{}")
    post(server, creds={"token": "hunter2hunter2"}, anonymous=True)
    post(server, creds={"token": "hunter2hunter2"})
    assert [headers.get("Authorization") for _, _, headers in server.requests] == [
        None,
        "Bearer hunter2hunter2",
    ]


def compressed(status: int, body: bytes, encoding: str) -> Respond:
    """Returns what answers with a body that is compressed already."""
    return plain(status, body, Content_Encoding=encoding)


def bare_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
    ],
)
def test_a_compressed_answer_is_read(
    server: Server, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    text = '{"x": "' + "y" * 300_000 + '"}'
    server.answers[PATH] = compressed(200, compress(text.encode()), encoding)
    assert [post(server).text for _ in range(2)] == [text] * 2
    assert server.connections == 1


@pytest.mark.heavy
@pytest.mark.parametrize("status", [200, 502])
def test_an_answer_that_is_gigabytes_when_decompressed_is_not(server: Server, status: int) -> None:
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(1_000_000)) for _ in range(70)) + compressor.flush()
    server.answers[PATH] = compressed(status, bomb, "gzip")
    tracemalloc.start(1)
    try:
        answer = post(server)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(answer.text) == (64_000_000 if status == 200 else 64_000)
    assert most < (300_000_000 if status == 200 else 8_000_000)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,gzip,gzip", "rot13, br"])
def test_an_answer_that_is_compressed_repeatedly_is_not_read(server: Server, encoding: str) -> None:
    server.answers[PATH] = compressed(200, gzip.compress(gzip.compress(b"{}")), encoding)
    with pytest.raises(Fault, match="the answer is compressed as") as raised:
        post(server)
    assert raised.value.cause is Cause.DOWN


@pytest.mark.parametrize(
    "body",
    [b"no gzip at all", gzip.compress(b"x" * 1000)[:-8] + bytes(8)],
    ids=["no gzip", "a wrong checksum"],
)
def test_a_damaged_compressed_answer_is_a_fault(server: Server, body: bytes) -> None:
    server.answers[PATH] = compressed(200, body, "gzip")
    with pytest.raises(Fault, match="cannot be decompressed"):
        post(server)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Sends chunks until the other side has enough."""
    handler.send_response(502)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
    handler.close_connection = True


def test_an_endless_answer_is_cut(server: Server) -> None:
    server.answers[PATH] = endless
    assert len(post(server).text) == 64_000


def test_an_endless_answer_of_a_server_on_this_machine_is_cut(server: Server) -> None:
    server.answers[PATH] = endless
    answer = transport.send_directly(("127.0.0.1", server.server_port), "GET", PATH, 30)
    assert (answer.status_code, len(answer.text)) == (502, 64_000)


@pytest.mark.heavy
def test_a_slow_answer_of_a_server_on_this_machine_ends_at_its_bound(server: Server) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b" ")
                time.sleep(0.02)

    server.answers[PATH] = drip
    with pytest.raises(Fault, match="the answer arrives too slowly"):
        transport.send_directly(("127.0.0.1", server.server_port), "GET", PATH, 0.2)


def test_a_large_answer_is_read_in_large_pieces(server: Server) -> None:
    server.answers[PATH] = plain(200, b'"' + b"y" * 3_000_000 + b'"')
    began = time.thread_time()
    assert len(post(server).text) == 3_000_002
    assert time.thread_time() - began < 1, "it took four seconds in pieces of eight bytes"
