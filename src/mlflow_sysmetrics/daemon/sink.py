"""Where points go: the one place that talks to a tracking server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.errors import RunRefused, ServerUnreachable

MAX_POINTS_PER_BATCH = 1000  #: MLflow's own limit, https://mlflow.org/docs/latest/rest-api#log-batch

# One try, one answer: the sender does the waiting. MLflow's defaults (120 s, 7 retries) would hold it for
# a quarter of an hour.
_REQUEST_SECONDS = 20
_OK = 200
_LONGEST_REASON = 300


class _NoRetries(int):
    """Zero, but true: MLflow 2.8 writes ``max_retries or 5``."""

    def __bool__(self) -> bool:
        return True


_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_GET_RUN = "/api/2.0/mlflow/runs/get"
# Answers that no waiting can change. Any other one, and any that is not MLflow's own (a proxy's page with 404
# or 400), may pass.
_FINAL = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"})


class Sink(Protocol):
    """Takes points for the runs of one tracking server."""

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970.

        Raises:
            ServerUnreachable: the server may tell later.
            RunRefused: there is no such run.
        """

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run, at most `MAX_POINTS_PER_BATCH` points.

        Raises:
            ServerUnreachable: nothing is known to have arrived; sending the same again is harmless.
            RunRefused: this run will never take them.
        """


def current_tracking_uri() -> str:
    """Returns the tracking URI that is in force now."""
    from mlflow.tracking import get_tracking_uri  # noqa: PLC0415 - importing us must not import MLflow

    return str(get_tracking_uri())


def redacted(tracking_uri: str) -> str:
    """Returns the URI without user, password and query, for messages.

    Never raises, and rather cuts too much: a password may hold what it should not.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    if not rest.startswith("/"):  # there is an authority, which may have a user and a password
        rest = rest.rpartition("@")[2]
    return f"{scheme}{colon}{rest}".partition("?")[0]


def without_secrets(text: str, tracking_uri: str) -> str:
    """Returns a message with every user and password of a URI cut out, and the tracking URI redacted."""
    return re.sub(r"://[^\s/]*@", "://", text.replace(tracking_uri, redacted(tracking_uri)))


def open_sink(tracking_uri: str) -> Sink:
    """Returns the sink for a tracking URI.

    A plain REST server is spoken to through MLflow's own request function, so its headers, tokens,
    certificates and plugins apply, but with one try and a short timeout. Any other store (SQLAlchemy, files,
    plugins that replace the REST client) gets what `MlflowClient` does.
    """
    from mlflow.store.tracking.rest_store import RestStore  # noqa: PLC0415 - as above
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    client = MlflowClient(tracking_uri)
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if isinstance(store, RestStore) and all(
        getattr(type(store), name) is getattr(RestStore, name)
        for name in ("log_batch", "get_run", "_call_endpoint")
    ):
        return RestSink(store.get_host_creds)
    return ClientSink(client)


class RestSink:
    """Speaks MLflow's REST protocol."""

    def __init__(self, get_host_creds: Any) -> None:  # noqa: ANN401 - MLflow's; fresh credentials each call
        self._get_host_creds = get_host_creds

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        answer = self._request("GET", _GET_RUN, params={"run_id": run_id})
        return int(answer["run"]["info"]["start_time"])

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        metrics = [
            {"key": key, "value": value, "timestamp": timestamp, "step": step}
            for (key, value, timestamp), step in zip(points, steps, strict=True)
        ]
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        self._request("POST", _LOG_BATCH, json={"run_id": run_id, "metrics": metrics, "tags": pairs})

    def _request(self, method: str, endpoint: str, **body: object) -> Any:  # noqa: ANN401 - JSON
        from mlflow.utils.rest_utils import http_request  # noqa: PLC0415 - loaded by the store already

        try:
            response = http_request(
                self._get_host_creds(),
                endpoint,
                method,
                max_retries=_NoRetries(0),
                timeout=_REQUEST_SECONDS,
                raise_on_status=False,
                **body,
            )
        except Exception as error:
            # Not only requests' own: credential providers and auth plugins run in there too.
            raise ServerUnreachable(_reason(error)) from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.status_code == _OK and isinstance(answer, dict):
            return answer
        code = answer.get("error_code") if isinstance(answer, dict) else None
        reason = f"HTTP {response.status_code} {code or response.reason or ''}".rstrip()
        if isinstance(answer, dict) and answer.get("message"):
            reason += f": {answer['message']}"
        raise (RunRefused if code in _FINAL else ServerUnreachable)(_first_line(reason))


class ClientSink:
    """Uses `MlflowClient`, for every store that is not plain REST."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - MLflow is not imported here for its types
        self._client = client

    def started_at(self, run_id: str) -> int:
        """Returns when the run started, in milliseconds since 1970."""
        return int(self._call(self._client.get_run, run_id).info.start_time)

    def send(
        self, run_id: str, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
    ) -> None:
        """Delivers points and tags of one run."""
        from mlflow.entities import Metric, RunTag  # noqa: PLC0415 - importing us must not import MLflow

        metrics = [
            Metric(key, value, timestamp, step)
            for (key, value, timestamp), step in zip(points, steps, strict=True)
        ]
        pairs = [RunTag(key, value) for key, value in tags.items()]
        self._call(self._client.log_batch, run_id, metrics=metrics, tags=pairs)

    def _call(self, method: Any, *arguments: object, **named: object) -> Any:  # noqa: ANN401
        try:
            return method(*arguments, **named)
        except Exception as error:
            # Stores raise MlflowException, but also what their database, file system or plugin raises.
            final = getattr(error, "error_code", None) in _FINAL
            raise (RunRefused if final else ServerUnreachable)(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """Returns what lies at the bottom of an exception: "Connection refused", not the layers above it."""
    root = error
    seen = {error}
    while (deeper := root.__cause__ or root.__context__) is not None and deeper not in seen:
        root = deeper
        seen.add(root)
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return f"{type(root).__name__}: {_first_line(str(root))}"


def _first_line(text: str) -> str:
    """Returns the first line of a message; some servers answer with a page."""
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= _LONGEST_REASON else f"{lines[0][:_LONGEST_REASON]}..."
