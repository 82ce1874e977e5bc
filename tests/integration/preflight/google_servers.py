"""A metadata server like on Google Cloud, and a tracking server that records the tokens it receives."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_EMAIL = "training@project.iam.gserviceaccount.com"


def id_token(audience: str, number: int) -> str:
    """Returns a token that is valid for an hour; its signature is not checked."""
    claims = {"aud": audience, "exp": int(time.time()) + 3600, "number": number}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{_encoded_header()}.{payload}.c2lnbmF0dXJl"


def claims_of(authorization: str) -> dict[str, Any]:
    """Returns the claims of a bearer token."""
    payload = authorization.removeprefix("Bearer ").split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def _encoded_header() -> str:
    return base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"


class MetadataServer(_Server):
    """Hands out ID tokens, numbered from 1.

    Attributes:
        handed_out: every token, oldest first.
        refusal: what it says in place of a token; None where it does not.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Metadata)
        self.handed_out: list[str] = []
        self.refusal: str | None = None

    def answer(self, path: str) -> tuple[int, str, str]:
        """Returns status, content type and text for a path."""
        parts = urlsplit(path)
        if parts.path == "/":
            return 200, "text/html", "computeMetadata/"
        if parts.path.endswith("/identity"):
            if self.refusal is not None:
                return 403, "text/html", self.refusal
            token = id_token(parse_qs(parts.query)["audience"][0], len(self.handed_out) + 1)
            self.handed_out.append(token)
            return 200, "text/html", token
        return 200, "application/json", json.dumps({"email": _EMAIL, "scopes": [], "aliases": ["default"]})


class TokenNotingServer(_Server):
    """Answers MLflow's client that nothing was found.

    Attributes:
        authorizations: the Authorization header of every request, oldest first; empty where there was none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tracking)
        self.authorizations: list[str] = []


class _Metadata(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        status, kind, text = self.server.answer(self.path)
        _send(self, status, kind, text)

    def log_message(self, *_: object) -> None:
        pass


class _Tracking(BaseHTTPRequestHandler):
    server: TokenNotingServer

    def do_POST(self) -> None:
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _send(self, 200, "application/json", "{}")

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


def _send(request: BaseHTTPRequestHandler, status: int, kind: str, text: str) -> None:
    request.send_response(status)
    request.send_header("Metadata-Flavor", "Google")
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(text.encode())))
    request.end_headers()
    request.wfile.write(text.encode())


@contextmanager
def serving(server: _Server) -> Iterator[None]:
    """Runs a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
