"""The connection to one tracking server, as delivery uses it.

MLflow makes everything anew for each request: it asks all plugins for headers (and tries to import those of
Databricks), reads the credentials, and looks through the environment for proxies. That takes ten times as
long as the request itself. So MLflow prepares a request, and its headers, credentials and proxies are used
again for a minute, over the same connection.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlsplit

from mlflow_sysmetrics.mlflow_api.bounded_answers import begin_answer, bounded_session
from mlflow_sysmetrics.mlflow_api.secrets import remember_headers
from mlflow_sysmetrics.mlflow_api.transport import (
    ServerAnswer,
    Timeouts,
    answer_of,
    request_of_mlflow,
    send,
    text_of,
)
from mlflow_sysmetrics.runtime.native import get_ident, patched

#: How long headers, credentials and proxies are used again before MLflow and its plugins are asked anew.
KEPT_SECONDS = 60.0

# Created once, since that costs as much as a call.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
_OK = 200
_REDIRECTIONS = range(300, 400)
_REFUSALS = range(400, 500)
# Too late, too large, too early, too many: other headers would change nothing.
_REFUSALS_OF_ANY = frozenset({408, 413, 425, 429})
_SHORT_ANSWER = 1000  # bytes; MLflow's to log-batch has two
_REDIRECTS = "MLFLOW_ALLOW_HTTP_REDIRECTS"  # MLflow reads it for each request


@dataclass(slots=True)
class _Kept:
    """What the next requests have in common with one that MLflow has prepared.

    Attributes:
        method: HTTP method.
        path: path below the tracking URI.
        request: the request, as requests prepares it.
        settings: how to send it: proxies, certificates.
        until: monotonic time from which MLflow is to be asked again.
        is_good: whether the server took the last one as it was, without a redirection.
        connection: the connection of urllib3 that it was sent over; None if requests must send it.
        head: its first lines, without the length of the body.
    """

    method: str
    path: str
    request: Any
    settings: Mapping[str, Any]
    until: float
    is_good: bool = False
    connection: Any = None
    head: bytes = b""


class _Prepared(BaseException):
    """Ends MLflow's function before it sends: not an Exception, which that function would wrap."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class RestConnection:
    """Sends requests to one tracking server over one connection. Used by one thread at a time.

    Args:
        get_host_creds: MLflow's function, which returns fresh credentials at each call.
        clock: monotonic seconds.
    """

    def __init__(
        self, get_host_creds: Callable[[], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._get_host_creds = get_host_creds
        self._clock = clock
        self._session: Any = None
        self._kept: _Kept | None = None
        self._owner: tuple[int, int | None] | None = None

    def send(
        self, method: str, path: str, timeouts: Timeouts, *, anonymous: bool = False, **body: Any
    ) -> ServerAnswer:
        """Sends one request; raises as `transport.send` does.

        Args:
            method: HTTP method.
            path: below the tracking URI.
            timeouts: bounds.
            anonymous: sends no credentials and no headers of plugins.
            **body: ``json`` or ``params``.
        """
        if anonymous:
            return send(self._get_host_creds(), method, path, timeouts, anonymous=True, **body)
        self._check_owner()
        kept = self._kept
        if kept is not None and (kept.method, kept.path) == (method, path) and self._clock() < kept.until:
            answer = self._send_again(kept, _encode(body["json"]).encode("ascii"), timeouts)
            if answer is not None:
                return answer
        self.forget()
        creds = self._get_host_creds()
        if _is_signed(creds):
            return send(creds, method, path, timeouts, **body)
        return self._send_anew(creds, method, path, timeouts, body)

    def forget(self) -> None:
        """Has MLflow and its plugins asked anew for the next request: something was wrong with the last."""
        self._kept = None

    def close(self) -> None:
        """Closes the connection; the next request opens it again."""
        self._kept = None
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _check_owner(self) -> None:
        """Drops what belongs to the parent of a fork, or to the event loop of another thread."""
        owner = (os.getpid(), get_ident() if patched() else None)
        if owner != self._owner:
            self._owner = owner
            self._kept = self._session = None

    def _send_anew(
        self, creds: Any, method: str, path: str, timeouts: Timeouts, body: Mapping[str, Any]
    ) -> ServerAnswer:
        """Sends a request that MLflow prepares now, and keeps what the next ones need."""
        began = time.monotonic()
        try:
            response = request_of_mlflow(creds, path, method, auth=_take, **body)
        except _Prepared as prepared:
            request = prepared.request
        else:  # of an MLflow that has its own idea of `auth`
            return answer_of(response, method, path, began, timeouts)
        session = self._session = self._session or bounded_session()
        request.prepare_cookies(session.cookies)
        cert = getattr(creds, "client_cert_path", None)
        settings = session.merge_environment_settings(
            request.url, proxies={}, stream=True, verify=creds.verify, cert=cert
        )
        kept = _Kept(method, path, request, settings, self._clock() + KEPT_SECONDS)
        answer = self._send_prepared(kept, request, timeouts)
        self._kept = kept if kept.is_good and "json" in body else None
        return answer

    def _send_prepared(self, kept: _Kept, request: Any, timeouts: Timeouts) -> ServerAnswer:
        """Sends a request through requests, which opens a connection if there is none."""
        began = time.monotonic()
        follows = os.environ.get(_REDIRECTS, "true").lower() in {"true", "1"}
        begin_answer(timeouts.total)
        response = self._session.send(
            request,
            timeout=(timeouts.connect, timeouts.read),
            allow_redirects=follows,
            **kept.settings,
        )
        connection = response.raw.connection  # until the body is read
        answer = answer_of(response, kept.method, kept.path, began, timeouts)
        kept.is_good = answer.status_code == _OK and not response.history
        target = self._session.get_adapter(request.url).request_url(request, kept.settings["proxies"])
        # A whole URL is for a proxy, and urllib3 may add credentials for that.
        if kept.is_good and target.startswith("/"):
            kept.head, kept.connection = _head(request, target), connection
        return answer

    def _send_again(self, kept: _Kept, body: bytes, timeouts: Timeouts) -> ServerAnswer | None:
        """Sends a request with what was kept.

        Returns:
            The answer; None if a request that is prepared anew may get another one: the connection broke, as
            an idle one may, or the server refuses the headers or redirects.

        Raises:
            Exception: no answer came in time.
        """
        try:
            if kept.connection is not None and _is_open(kept.connection):
                try:
                    answer = _exchange(kept, body, timeouts)
                except (ConnectionError, HTTPException):
                    return None
            else:
                request = kept.request.copy()
                request.prepare_body(body, None)
                answer = self._send_prepared(kept, request, timeouts)
        except BaseException:  # also Ctrl-C: half an answer may be left on the connection
            self.forget()
            raise
        if answer.status_code != _OK:
            remember_headers(kept.request.headers)  # the answer may quote them
            self.forget()
            is_refusal = answer.status_code in _REFUSALS and answer.status_code not in _REFUSALS_OF_ANY
            if is_refusal or answer.status_code in _REDIRECTIONS:
                return None
        return answer


def _exchange(kept: _Kept, body: bytes, timeouts: Timeouts) -> ServerAnswer:
    """Sends a request over the open connection and reads the answer."""
    began = time.monotonic()
    connection = kept.connection
    complete = False
    begin_answer(timeouts.total)
    try:
        connection.sock.settimeout(timeouts.read)
        connection.sock.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (kept.head, len(body), body))
        response = HTTPResponse(connection.sock, method=kept.method)
        try:
            response.begin()
            text = text_of(response, began, timeouts.total)
            complete = not response.will_close and len(text) < _SHORT_ANSWER
        finally:
            response.close()
    finally:
        if not complete:  # what is left of this answer would be taken for the next one
            connection.close()
    headers = cast("Mapping[str, str]", response.headers)  # which ignores case
    return ServerAnswer(response.status, text, headers, time.monotonic() - began)


def _is_open(connection: Any) -> bool:
    """Returns whether a connection is open, and the server has not closed it."""
    from urllib3.util import wait_for_read

    return connection.sock is not None and not wait_for_read(connection.sock, timeout=0)


def _head(request: Any, target: str) -> bytes:
    """Returns the first lines of a prepared request, without the length of the body."""
    url = urlsplit(request.url)
    default = 443 if url.scheme == "https" else 80
    host = url.netloc.rpartition("@")[2].removesuffix(f":{default}")
    lines = [f"{request.method} {target} HTTP/1.1".encode("ascii"), b"Host: " + host.encode("ascii")]
    for name, value in request.headers.items():
        if name.lower() not in {"host", "content-length"}:
            lines.append(_encoded(name) + b": " + _encoded(value))
    return b"\r\n".join([*lines, b""])


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _is_signed(creds: Any) -> bool:
    """Returns whether each request gets a signature or a token of its own, or the Databricks SDK sends it."""
    return any(getattr(creds, name, None) for name in ("auth", "aws_sigv4", "use_databricks_sdk"))


def _take(request: Any) -> Any:
    """Takes a prepared request from MLflow's function, before it is sent.

    To requests this is its authentication, the last thing that it adds. Without one it would look into
    ~/.netrc, and into the URL.
    """
    from requests.utils import get_netrc_auth

    request.prepare_auth(get_netrc_auth(request.url), request.url)
    raise _Prepared(request)
