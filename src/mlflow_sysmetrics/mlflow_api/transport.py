"""Requests to a tracking server in MLflow's REST protocol: one attempt, in bounded time.

Credentials, headers, certificates and plugins are MLflow's. Its retries are not: MLflow's defaults (120 s, 7
retries) would hold a caller for a quarter of an hour. Nothing else in this package sends such requests.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from json import dumps
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from mlflow_sysmetrics.mlflow_api.bounded_answers import begin_answer, bounded_session, read_body
from mlflow_sysmetrics.mlflow_api.clients import host_creds
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_answer, fault_of_error, read_answer
from mlflow_sysmetrics.mlflow_api.secrets import remember_credentials, remember_headers
from mlflow_sysmetrics.runtime.bounded_calls import PendingCall
from mlflow_sysmetrics.runtime.native import Event, get_ident, patched

T = TypeVar("T")

API = "/api/2.0/mlflow/"

#: begins the reason of a fault of credentials that were not ready in time
NOT_SENT = "no request was sent, because the credentials were not ready"
_OK = 200
# A run with thousands of tags and metrics, some of 8,000 characters, is a few megabytes. Only a success can
# be so large: of an error the first line is shown.
_LONGEST_BODY = 64_000_000
_LONGEST_ERROR = 64_000
_CONNECT_SECONDS = 10.0  # a cold container behind a load balancer accepts at once; it answers late


class _NoRetries(int):
    """Zero, but true: MLflow 2.8 writes ``max_retries or 5``.

    MLflow keeps a session, with its connections, for each combination of such arguments. Where gevent has
    patched the sockets, each of our threads needs one of its own: there a connection belongs to the event
    loop of the thread that has opened it. So each thread then has a zero that equals no other thread's.
    """

    def __new__(cls, thread: int | None = None) -> _NoRetries:
        zero = super().__new__(cls, 0)
        zero.thread = thread
        return zero

    thread: int | None

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return int(self) == other and (not isinstance(other, _NoRetries) or self.thread == other.thread)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(0)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of one request, in seconds.

    Attributes:
        connect: bound of the connection.
        read: bound of each part of the answer.
        total: bound of the whole answer, checked between two parts.
    """

    connect: float
    read: float
    total: float


class _Sending(tuple[float, float]):  # noqa: SLOT001 - a tuple can have no slots with names
    """Timeouts of requests, which reads them when all else is prepared: notes when a request is sent.

    Nothing else tells: auth plugins run within requests, and some sign the request that it has prepared.

    Args:
        timeouts: bounds.
        reached: set when the request is sent.

    Attributes:
        began: monotonic time when the request was sent.
    """

    def __new__(cls, timeouts: Timeouts, reached: Event | None) -> _Sending:
        self = super().__new__(cls, (timeouts.connect, timeouts.read))
        self.began, self._reached = time.monotonic(), reached
        return self

    began: float
    _reached: Event | None

    def __iter__(self) -> Iterator[float]:
        self.now()
        return super().__iter__()

    def now(self) -> None:
        """The request is sent; of a redirection, the first one counts."""
        if self._reached is not None and not self._reached.is_set():
            self.began = time.monotonic()
            self._reached.set()


@dataclass(frozen=True, slots=True)
class Preparation:
    """How long the credentials of a request may take, apart from the server.

    Attributes:
        seconds: longest wait for them, and for headers of plugins.
        took: called with the seconds that they took, once the request is sent.
    """

    seconds: float
    took: Callable[[float], object]


@dataclass(frozen=True)
class ServerAnswer:
    """The answer of a server.

    Attributes:
        status_code: HTTP status.
        text: the body, cut after 64 MB; of an error, after 64 kB.
        headers: headers by name, ignoring case.
        seconds: how long it took.
        redirected_to: the address that answered, if it is not the one that was asked.
        is_to_request: whether the request that was answered had the method and path that were asked for.
            A redirection may change them: a POST becomes a GET.
    """

    status_code: int
    text: str
    headers: Mapping[str, str]
    seconds: float
    redirected_to: str | None = None
    is_to_request: bool = True

    def fault(self, tracking_uri: str) -> Fault | None:
        """Returns what is wrong with it; None for a JSON object with HTTP 200 and without an error code.

        Args:
            tracking_uri: for masking.
        """
        return fault_of_answer(
            self.status_code,
            self.text,
            self.headers,
            tracking_uri,
            redirected_to=self.redirected_to,
            is_to_request=self.is_to_request,
        )

    def read(self, read: Callable[[Any], T], tracking_uri: str) -> T:
        """Returns what a function reads from a success of MLflow.

        Args:
            read: takes the JSON; raises KeyError, TypeError, AttributeError or ValueError for another shape.
            tracking_uri: for masking.

        Raises:
            Fault: it is not a success, or not MLflow's answer to this request.
        """
        fault = self.fault(tracking_uri)
        if fault is not None:
            raise fault
        return read_answer(self.text, read, tracking_uri)


def get(tracking_uri: str, path: str, timeout: float) -> ServerAnswer:
    """Sends a GET as `request` does."""
    return request(tracking_uri, "GET", path, timeout)


def request(
    tracking_uri: str,
    method: str,
    path: str,
    timeout: float,
    *,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
    anonymous: bool = False,
    preparation: Preparation | None = None,
) -> ServerAnswer:
    """Sends one request, in a thread, and waits for it no longer than the timeout.

    Args:
        tracking_uri: an http, https or databricks URI, or one of a plugin that speaks MLflow's protocol.
        method: HTTP method.
        path: below the tracking URI, such as ``/health``.
        timeout: seconds for everything: name lookup, tokens, connection, answer.
        json: the body.
        params: the query.
        anonymous: sends no credentials and no headers of plugins.
        preparation: a time of its own for the tokens, which the timeout then leaves out.

    Raises:
        Fault: no answer came in that time; says why, without secrets.
    """
    body = {key: value for key, value in (("json", json), ("params", params)) if value is not None}
    timeouts = Timeouts(min(timeout, _CONNECT_SECONDS), timeout, timeout)
    sending = Event()
    began = time.monotonic()

    def ask() -> ServerAnswer:
        try:
            creds = host_creds(tracking_uri)
            return send(creds, method, path, timeouts, anonymous=anonymous, sending=sending, **body)
        finally:
            sending.set()

    try:
        call = PendingCall(ask, "sysmetrics-preflight")
        is_sent = sending.wait(timeout if preparation is None else preparation.seconds)
        prepared = time.monotonic() - began
        if is_sent:
            if preparation is not None:
                preparation.took(prepared)
            return call.result(timeout if preparation is not None else timeout - prepared)
        fault = Fault(f"{NOT_SENT} within {float(f'{prepared:.3g}'):g} s", Cause.DOWN)
    except Exception as error:  # noqa: BLE001 - credential providers and auth plugins run in there too
        fault = fault_of_error(error, tracking_uri, seconds=timeout)
    raise fault  # outside the handler, so that it does not carry MLflow's exception, which quotes the URI


def send(
    creds: Any,
    method: str,
    path: str,
    timeouts: Timeouts,
    *,
    anonymous: bool = False,
    sending: Event | None = None,
    **body: Any,
) -> ServerAnswer:
    """Sends one request in this thread.

    Args:
        creds: MLflow's description of the server and its credentials.
        method: HTTP method.
        path: below the tracking URI.
        timeouts: bounds.
        anonymous: sends no credentials and no headers of plugins.
        sending: set when the credentials are ready; then the bounds begin.
        **body: ``json`` or ``params``, as requests takes them.

    Raises:
        Fault: the answer was not complete in time.
        Exception: what MLflow, requests, or a plugin of either raises; `fault_of_error` reads it.
    """
    when = _Sending(timeouts, sending)
    if anonymous:
        response = _anonymous_request(creds, path, method, timeouts.total, when, **body)
    else:
        response = request_of_mlflow(creds, path, method, **_timeouts(creds, timeouts, when), **body)
    return answer_of(response, method, path, when.began, timeouts)


def answer_of(response: Any, method: str, path: str, began: float, timeouts: Timeouts) -> ServerAnswer:
    """Reads a response of requests.

    Args:
        response: the response, with `stream`.
        method: HTTP method that was asked for.
        path: path that was asked for.
        began: monotonic time when the request was sent.
        timeouts: bounds.

    Raises:
        Fault: it was not complete in time.
    """
    for one in (*getattr(response, "history", ()), response):
        remember_headers(getattr(getattr(one, "request", None), "headers", None) or {})
    text = text_of(response, began, timeouts.total)
    redirected = bool(getattr(response, "history", ()))
    return ServerAnswer(
        response.status_code,
        text,
        response.headers,
        time.monotonic() - began,
        str(response.url or "").partition("?")[0] if redirected else None,
        not redirected or _is_same_request(response, method, path),
    )


def send_directly(
    address: tuple[str, int],
    method: str,
    path: str,
    timeout: float,
    *,
    host_header: str | None = None,
    user: tuple[str, str] | None = None,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> ServerAnswer:
    """Sends one request to a server on this machine, past MLflow, proxies and the environment.

    Args:
        address: host and port to connect to.
        method: HTTP method.
        path: path of the URL.
        timeout: seconds for everything, checked between two parts of the answer.
        host_header: the Host header; None for host and port.
        user: name and password of basic authentication; None for none.
        json: the body.
        params: the query.

    Raises:
        Fault: no answer came in time.
    """
    host, port = address
    began = time.monotonic()
    headers = {"Host": host_header or f"{host}:{port}", **_basic(user)}
    if json is not None:
        headers["Content-Type"] = "application/json"
    target = f"{path}?{urlencode(params)}" if params else path
    try:
        with closing(HTTPConnection(host, port, timeout=timeout)) as connection:
            connection.request(method, target, None if json is None else dumps(json), headers)
            response = connection.getresponse()
            text = text_of(response, began, timeout)
    except (OSError, HTTPException) as error:
        raise fault_of_error(error, f"http://{host}:{port}", seconds=timeout) from None
    return ServerAnswer(response.status, text, dict(response.headers.items()), time.monotonic() - began)


def _basic(user: tuple[str, str] | None) -> dict[str, str]:
    """Returns the header of basic authentication, which is masked from now on."""
    if user is None:
        return {}
    header = {"Authorization": f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"}
    remember_headers(header)
    return header


def request_of_mlflow(creds: Any, path: str, method: str, **options: Any) -> Any:
    """Sends a request as MLflow does, without its retries; returns the response of requests, not yet read."""
    from mlflow.utils.rest_utils import http_request

    remember_credentials(*(getattr(creds, name, None) for name in ("username", "password", "token")))
    no_retries = _NoRetries(get_ident() if patched() else None)
    options |= {"max_retries": no_retries, "raise_on_status": False, "stream": True}
    return http_request(creds, path, method, **options)


def _anonymous_request(
    creds: Any, path: str, method: str, total: float, timeout: _Sending, **body: Any
) -> Any:
    """Sends a request without credentials.

    MLflow's own function has plugins add headers to each request, and those may be tokens. Proxies and
    ~/.netrc apply: they name the hosts that they are for.
    """
    url = f"{creds.host.rstrip('/')}{path}"
    begin_answer(total)
    with bounded_session() as session:
        return session.request(method, url, verify=creds.verify, stream=True, timeout=timeout, **body)


def _timeouts(creds: Any, timeouts: Timeouts, when: _Sending) -> dict[str, Any]:
    """Returns the timeouts in the form that the sender of the request takes."""
    if getattr(creds, "use_databricks_sdk", False):  # it takes one whole number, and retries on its own
        when.now()  # it does not tell when it has its token
        seconds = max(int(timeouts.read), 1)
        return {"timeout": seconds, "retry_timeout_seconds": seconds}
    return {"timeout": when}


def _is_same_request(response: Any, method: str, path: str) -> bool:
    """Returns whether the last request of a redirection still has the method and the path of the first."""
    sent = getattr(response, "request", None)
    return sent is not None and sent.method == method and urlsplit(sent.url).path.endswith(path)


def text_of(response: Any, began: float, seconds: float) -> str:
    """Returns the body of an answer; of an error, its beginning.

    Raises:
        Fault: it was not complete in time.
    """
    status = getattr(response, "status_code", None) or response.status
    longest = _LONGEST_BODY if status == _OK else _LONGEST_ERROR
    body = read_body(response, began=began, seconds=seconds, longest=longest)
    return body.decode("utf-8", "replace")
