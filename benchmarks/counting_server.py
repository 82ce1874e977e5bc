"""A tracking server that counts: just enough of MLflow's REST API for its clients, in memory, on loopback.

As a program it prints its URL on the first line and serves until its standard input closes or its parent
exits. From Python::

    with counting_server(log_batch="ok") as server:
        mlflow.set_tracking_uri(server.url)
        ...
        server.mode("hang")

Besides MLflow's endpoints it has four more, which are not counted: GET /counts, GET /points?run_id=..., POST
/reset, and POST /mode with {"log_batch": one of `MODES`}.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from counting_store import ENDPOINTS, MODES, OWN_ENDPOINTS, ApiError, Store

_PREFIX = "/api/2.0/mlflow/"
_PLAIN = {"/health": "OK", "/version": "3.0.0"}  # plain text, as on a real server
_SLOW_SECONDS = 1.0
_CLIENT_SECONDS = 120.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST instead of FIN


class Server(ThreadingHTTPServer):
    """Listens on loopback and ends with its parent."""

    request_queue_size = 1024  # hundreds of clients may connect at once
    daemon_threads = True

    def __init__(self, port: int, store: Store) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.store = store
        self._parent = os.getppid()

    def service_actions(self) -> None:
        """Exits if the parent has exited; called twice a second."""
        if os.getppid() != self._parent:
            os._exit(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answers a request with its arguments in the query."""
        self._answer(lambda: dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        """Answers a request with its arguments in the body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(lambda: json.loads(body or b"{}"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Logs nothing."""

    def _answer(self, read: Callable[[], dict[str, Any]]) -> None:
        try:
            path, asked = urlsplit(self.path).path, read()
            answer = self._own_endpoint(path, asked)
            if answer is None:
                answer = self._counted_endpoint(path, asked)
        except ApiError as error:
            self._send(error.status, json.dumps(error.answer))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": repr(error)})
            self._send(HTTPStatus.BAD_REQUEST, answer)
        else:
            if answer:
                self._send(HTTPStatus.OK, answer)

    def _counted_endpoint(self, path: str, asked: dict[str, Any]) -> str:
        """Serves an endpoint of MLflow; an empty answer means that the connection is closed."""
        store = self.server.store
        endpoint = path.removeprefix(_PREFIX)
        with store.lock:
            store.requests[endpoint] += 1
        if endpoint in _PLAIN:
            return _PLAIN[endpoint]
        if endpoint not in ENDPOINTS:
            raise ApiError(HTTPStatus.NOT_FOUND, "ENDPOINT_NOT_FOUND", path)
        if endpoint == "runs/log-batch" and not self._let_through(store.log_batch_mode):
            return ""
        with store.lock:
            return json.dumps(ENDPOINTS[endpoint](store, asked))

    def _own_endpoint(self, path: str, asked: dict[str, Any]) -> str | None:
        own = OWN_ENDPOINTS.get(path)
        if own is None:
            return None
        with self.server.store.lock:
            return json.dumps(own(self.server.store, asked))

    def _let_through(self, mode: str) -> bool:
        """Applies the mode of log-batch; returns whether to serve the request."""
        if mode == "hang":
            threading.Event().wait()
        elif mode == "refuse":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            socket.close(self.connection.detach())
            self.close_connection = True
            return False
        elif mode == "500":
            raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "log_batch=500")
        elif mode == "slow":
            time.sleep(_SLOW_SECONDS)
        return True

    def _send(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        # Written by hand and in one piece: send_response formats a date and six more headers per answer.
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        self.wfile.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


@dataclass(frozen=True, slots=True)
class CountingServer:
    """A server in a separate process, as seen by the test that started it."""

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """Its port; another server may use the same port once this one is killed."""
        return int(self.url.rpartition(":")[2])

    def counts(self) -> dict[str, Any]:
        """Returns {"requests": {endpoint: n}, "points": {run id: {key: n}}}."""
        counts: dict[str, Any] = self._call("GET", "/counts")
        return counts

    def points(self, run_id: str) -> dict[str, list[dict[str, Any]]]:
        """Returns value, timestamp and step of each point of a run by key, in order of arrival."""
        points: dict[str, list[dict[str, Any]]] = self._call("GET", f"/points?run_id={run_id}")
        return points

    def mode(self, log_batch: str) -> None:
        """Sets the mode of log-batch, one of `MODES`."""
        self._call("POST", "/mode", {"log_batch": log_batch})

    def reset(self) -> None:
        """Deletes runs, points and counts."""
        self._call("POST", "/reset")

    def kill(self) -> None:
        """Kills it immediately, like an outage."""
        self.process.kill()
        self.process.wait()

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        # http.client ignores proxy variables.
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_CLIENT_SECONDS)
        try:
            connection.request(method, path, json.dumps(body or {}) if method == "POST" else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            raise ValueError(f"{method} {path}: {answer}")
        return answer


@contextmanager
def counting_server(log_batch: str = "ok", port: int = 0) -> Iterator[CountingServer]:
    """Runs a server in a separate process for the duration of a ``with`` block.

    Args:
        log_batch: mode of log-batch, one of `MODES`.
        port: port to listen on; 0 picks a free one.

    Raises:
        RuntimeError: the server does not start; its standard error has the reason.
    """
    # Without site, it starts in a third of the time; it needs the standard library only.
    command = [sys.executable, "-S", __file__, "--log-batch", log_batch, "--port", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise RuntimeError("the counting server does not start")
            yield CountingServer(url, process)
        finally:
            process.kill()


def _end_with_input() -> None:
    # Not sys.stdin: its lock would be held when the interpreter exits.
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Serves until standard input closes, the parent exits, or Ctrl-C."""
    parser = argparse.ArgumentParser(description="A tracking server that counts requests and points.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    parser.add_argument("--log-batch", choices=MODES, default="ok", help="mode of log-batch")
    options = parser.parse_args()
    server = Server(options.port, Store(options.log_batch))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        os._exit(0)


if __name__ == "__main__":
    main()
