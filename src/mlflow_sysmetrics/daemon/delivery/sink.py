"""Where points go: the one place that talks to a tracking server."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from mlflow_sysmetrics.daemon.delivery.credential_scope import WITHHELD, anonymous_request
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.resending import send_what_is_missing
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.errors import DeliveryError, JournalUnavailable, NotAllowed, ServerUnreachable
from mlflow_sysmetrics.mlflow_api.classification import fault, root_cause
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted, without_secrets

# FOLDED connection: How one tracking server is reached, and what it is called where people read of it.

_MILLISECONDS = 1000


class Connection:
    """Makes the sink of a tracking server when it is first needed, and puts batches into it.

    Args:
        tracking_uri: the server.
        open_sink: makes the sink; called again after each failure to make one.
    """

    def __init__(self, tracking_uri: str, open_sink: Callable[[str], Sink]) -> None:
        self._tracking_uri = tracking_uri
        self._open_sink = open_sink
        self._sink: Sink | None = None

    def __str__(self) -> str:
        """Returns the server's name, without secrets."""
        return f"Tracking server {redacted(self._tracking_uri)}"

    def reason(self, error: Exception) -> str:
        """Returns what an attempt failed of, without secrets."""
        kind = "" if isinstance(error, (DeliveryError, JournalUnavailable)) else f"{type(error).__name__}: "
        return without_secrets(f"{kind}{error}", self._tracking_uri)

    def send(self, queue: RunQueue, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Delivers points and tags of one run. Takes as long as the server does.

        Raises:
            DeliveryError: the server did not take them, or there is no client for it.
        """
        if not points and not tags:
            return  # all of it was thinned on disk
        if self._sink is None:
            try:
                self._sink = self._open_sink(self._tracking_uri)
            except Exception as error:
                # A store is made by MLflow or by a plugin: it may raise anything, and may do better later.
                raise ServerUnreachable(f"no client for {redacted(self._tracking_uri)}: {error}") from error
        by_time = any(point.step is None for point in points)
        if by_time and queue.started_at is None:
            queue.set_started_at(self._sink.started_at(queue.run_id))
        started_at = queue.started_at or 0
        steps = [
            max(point.timestamp - started_at, 0) // _MILLISECONDS if point.step is None else point.step
            for point in points
        ]
        self._sink.send(queue.run_id, points, steps, tags)


__all__ = ["Sink", "current_tracking_uri", "open_sink", "redacted", "without_secrets"]

# One try, one answer: the sender does the waiting. MLflow's defaults (120 s, 7 retries) would hold it for a
# quarter of an hour. A server on the other side of the world shakes hands within a second, and a batch of a
# thousand points takes a busy database a few.
_CONNECT_SECONDS = 5
_READ_SECONDS = 15
# The read timeout is for each piece. An answer that drips in takes no longer than this in all; it is read in
# pieces so small that even a byte a second lets us look at the clock.
_ANSWER_SECONDS = 30
_PIECE_BYTES = 8
_OK = 200
_LONGEST_REASON = 300
_LONGEST_TEXT = 2000  # of an answer that is searched for what it complains of


class _NoRetries(int):
    """Zero, but true: MLflow 2.8 writes ``max_retries or 5``."""

    def __bool__(self) -> bool:
        return True


_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_GET_RUN = "/api/2.0/mlflow/runs/get"
_RUNNING = "RUNNING"
_ALIVE = frozenset({_RUNNING, "SCHEDULED"})


class Sink(Protocol):
    """Takes points for the runs of one tracking server."""

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970.

        Raises:
            ServerUnreachable: the server may tell later.
            RunRefused: there is no such run.
        """

    def has_ended(self, run_id: str) -> bool:
        """Returns whether the run is over.

        Raises:
            ServerUnreachable: the server may tell later.
            RunRefused: there is no such run.
        """

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run, at most a thousand points.

        Raises:
            ServerUnreachable: nothing is known to have arrived; sending the same again is harmless.
            BatchTooLarge: the server takes fewer at a time.
            RunRefused: this run will never take them.
        """


def import_mlflow() -> None:
    """Imports all of MLflow that our threads use. For a program's own thread.

    MLflow's modules import each other in a circle. Where two threads begin at different ends of it, Python
    breaks the deadlock by giving one of them a module that is half made: its import fails, and a program's
    own `import mlflow` may be that one.
    """
    import mlflow.store.tracking.rest_store
    import mlflow.tracking  # noqa: F401 - as above


def current_tracking_uri() -> str:
    """Returns the tracking URI that is in force now."""
    from mlflow.tracking import get_tracking_uri

    return str(get_tracking_uri())


def open_sink(tracking_uri: str, trusts: Callable[[str], bool] = lambda _: True) -> Sink:
    """Returns the sink for a tracking URI.

    A plain REST server is spoken to through MLflow's own request function, so its headers, tokens,
    certificates and plugins apply, but with one try and a short timeout. Any other store (SQLAlchemy, files,
    plugins that replace the REST client) gets what `MlflowClient` does.

    Args:
        tracking_uri: the server.
        trusts: tells whether a server may see the credentials of the environment; asked at each request. A
            store that is not plain REST uses what its driver or plugin finds.

    Raises:
        ServerUnreachable: the store is a file that is not there, on a disk that may come back. MLflow would
            make a new one, which knows no run.
    """
    check_store(tracking_uri)
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if isinstance(store, RestStore) and all(
        getattr(type(store), name) is getattr(RestStore, name)
        for name in ("log_batch", "get_run", "_call_endpoint")
    ):
        return RestSink(store.get_host_creds, lambda: trusts(tracking_uri))
    return ClientSink(client)


class RestSink:
    """Speaks MLflow's REST protocol.

    Args:
        get_host_creds: of MLflow; returns fresh credentials at each call.
        is_trusted: tells whether the server may see them.
    """

    def __init__(self, get_host_creds: Any, is_trusted: Callable[[], bool] = lambda: True) -> None:
        self._get_host_creds = get_host_creds
        self._is_trusted = is_trusted

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        return int(self._info(run_id)["start_time"])

    def has_ended(self, run_id: str) -> bool:
        """Returns whether the run is over."""
        return bool(self._info(run_id).get("status", _RUNNING) not in _ALIVE)

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        send_what_is_missing(partial(self._send, run_id), points, steps, tags)

    def _send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        metrics = [
            {"key": point.key, "value": _json(point.value), "timestamp": point.timestamp, "step": step}
            for point, step in zip(points, steps, strict=True)
        ]
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        self._request("POST", _LOG_BATCH, json={"run_id": run_id, "metrics": metrics, "tags": pairs})

    def _info(self, run_id: str) -> Any:
        return self._request("GET", _GET_RUN, params={"run_id": run_id})["run"]["info"]

    def _request(self, method: str, endpoint: str, **body: object) -> Any:
        from mlflow.utils.rest_utils import http_request

        ends = time.monotonic() + _ANSWER_SECONDS
        try:
            creds = self._get_host_creds()
            trusted = self._is_trusted()
            options = {**_timeouts(creds), **body}
            if trusted:
                options |= {"max_retries": _NoRetries(0), "raise_on_status": False, "stream": True}
            response = (http_request if trusted else anonymous_request)(creds, endpoint, method, **options)
            text = _read(response, ends)
        except ServerUnreachable:
            raise
        except Exception as error:
            # Not only requests' own: credential providers and auth plugins run in there too.
            raise ServerUnreachable(_reason(error)) from error
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status_code == _OK and isinstance(answer, dict):
            return answer
        raise _fault(response, answer, text, note="" if trusted else f"; {WITHHELD}")


class ClientSink:
    """Uses `MlflowClient`, for every store that is not plain REST."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        return int(self._call(self._client.get_run, run_id).info.start_time)

    def has_ended(self, run_id: str) -> bool:
        """Returns whether the run is over."""
        return self._call(self._client.get_run, run_id).info.status not in _ALIVE

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        send_what_is_missing(partial(self._send, run_id), points, steps, tags)

    def _send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Metric, RunTag

        metrics = [
            Metric(point.key, point.value, point.timestamp, step)
            for point, step in zip(points, steps, strict=True)
        ]
        pairs = [RunTag(key, value) for key, value in tags.items()]
        self._call(self._client.log_batch, run_id, metrics=metrics, tags=pairs)

    def _call(self, method: Any, *arguments: object, **named: object) -> Any:
        try:
            return method(*arguments, **named)
        except Exception as error:
            # Stores raise MlflowException, but also what their database, file system or plugin raises.
            code = getattr(error, "error_code", None)
            raise fault(None, code, str(error)[:_LONGEST_TEXT], _reason(error)) from error


def _json(value: float) -> float | str:
    """Returns a value as protobuf's JSON has it: what is no finite number is a word."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _timeouts(creds: Any) -> dict[str, Any]:
    """Returns the timeouts of a request, in the form that what makes it understands."""
    if getattr(creds, "use_databricks_sdk", False):  # it takes one number, and retries by itself
        return {"timeout": _READ_SECONDS, "retry_timeout_seconds": _READ_SECONDS}
    return {"timeout": (_CONNECT_SECONDS, _READ_SECONDS)}


def _read(response: Any, ends: float) -> bytes:
    """Returns the body of an answer.

    Raises:
        ServerUnreachable: it has not come to its end in time.
    """
    text = bytearray()
    for piece in response.iter_content(_PIECE_BYTES):
        text += piece
        if time.monotonic() > ends:
            response.close()
            raise ServerUnreachable(f"the answer drips in, and was not complete after {_ANSWER_SECONDS} s")
    return bytes(text)


def _fault(response: Any, answer: object, text: bytes, note: str) -> DeliveryError:
    """Returns what to raise for an answer that is not a success; the note is for one about credentials."""
    code = answer.get("error_code") if isinstance(answer, dict) else None
    reason = f"HTTP {response.status_code} {code or response.reason or ''}".rstrip()
    if isinstance(answer, dict) and answer.get("message"):
        reason += f": {answer['message']}"
    found = fault(
        response.status_code,
        code if isinstance(code, str) else None,
        text[:_LONGEST_TEXT].decode("utf-8", "replace"),
        _first_line(reason),
        response.headers.get("Retry-After"),
    )
    return NotAllowed(f"{found}{note}", found.retry_after) if isinstance(found, NotAllowed) else found


def _reason(error: BaseException) -> str:
    root = root_cause(error)
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return f"{type(root).__name__}: {_first_line(str(root))}"


def _first_line(text: str) -> str:
    """Returns the first line of a message; some servers answer with a page."""
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= _LONGEST_REASON else f"{lines[0][:_LONGEST_REASON]}..."
