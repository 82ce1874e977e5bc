"""Runs of a tracking server as delivery writes to them: points and tags in, start and status out.

A plain REST server gets MLflow's own request function, so that its headers, tokens, certificates and plugins
apply, with one attempt and short timeouts. Any other store (SQLAlchemy, files, plugins that replace the REST
client) gets what `MlflowClient` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error, nothing, read_answer
from mlflow_sysmetrics.mlflow_api.rest_connection import RestConnection
from mlflow_sysmetrics.mlflow_api.transport import API, Timeouts

T = TypeVar("T")

#: Added to the reason if a server refuses a request that was sent without credentials.
WITHHELD = "credentials of the environment are sent only to the server of MLFLOW_TRACKING_URI"

# A server on another continent completes the handshake within a second, and a busy database takes a few
# seconds for a batch of a thousand points. Waiting longer is the sender's job.
_TIMEOUTS = Timeouts(connect=5, read=15, total=30)
_NEWEST = "attributes.start_time DESC"
_MOST_EXPERIMENTS = 1000  # a request of a search may name so many
_SYSTEM = "system/"
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
_TIMEOUTS_IN_BETWEEN = Timeouts(connect=1, read=2, total=3)  # the program's own thread waits


class Metric(NamedTuple):
    """One point of a series; the timestamp is in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class RunState(NamedTuple):
    """The state of a run; times are in milliseconds since 1970, None if the server has none.

    `last_metric_at` is the time of the newest metric of the program: of one that is not a system metric.
    """

    status: str
    started_at: int | None
    tags: Mapping[str, str] = MappingProxyType({})
    last_metric_at: int | None = None


class FoundRun(NamedTuple):
    """A run that a search has found; the start is in milliseconds since 1970."""

    run_id: str
    started_at: int | None
    tags: Mapping[str, str]


class Runs(Protocol):
    """The runs of one tracking server. Each method makes one attempt and raises `Fault` if it fails."""

    def state(self, run_id: str) -> RunState:
        """Returns the state of a run."""

    def log_batch(self, run_id: str, metrics: Iterable[Metric], tags: Mapping[str, str]) -> None:
        """Writes metrics and tags of a run. Returns only if MLflow has acknowledged this very request."""

    def search(self, experiment_ids: Sequence[str], wanted: str, most: int) -> list[FoundRun]:
        """Returns the newest runs that a filter finds."""

    def experiment_ids(self, name: str | None) -> list[str]:
        """Returns the id of an experiment, none if it does not exist; without a name the ids of all."""

    def close(self) -> None:
        """Closes the connection; the next call opens it again."""


def open_runs(
    tracking_uri: str, is_trusted: Callable[[], bool] = lambda: True, timeouts: Timeouts = _TIMEOUTS
) -> Runs:
    """Returns the runs of a tracking server.

    Args:
        tracking_uri: the server.
        is_trusted: returns whether the server may see the credentials of the environment; called for each
            request. A store that is not plain REST uses what its driver or plugin finds.
        timeouts: of a REST request.

    Raises:
        Exception: what MLflow or a plugin raises if it cannot create a client.
    """
    client = clients.open_client(tracking_uri)
    store = fluent_state.store_of(client)
    if clients.is_plain_rest(store):
        return RestRuns(store.get_host_creds, tracking_uri, is_trusted, timeouts)
    return ClientRuns(client, tracking_uri)


def set_tags_now(tracking_uri: str | None, run_id: str, tags: Mapping[str, str]) -> bool:
    """Sets tags of a run in this thread, for a process that can start no other; returns whether it worked.

    A REST server has three seconds; it has just answered `mlflow.start_run`, with MLflow's own timeouts.

    Args:
        tracking_uri: the server; None for the current one.
        run_id: the run.
        tags: the tags.
    """
    try:
        uri = tracking_uri or fluent_state.current_tracking_uri()
        with closing(open_runs(uri, timeouts=_TIMEOUTS_IN_BETWEEN)) as runs:
            runs.log_batch(run_id, (), tags)
    except Exception as error:  # noqa: BLE001 - of MLflow or a plugin, which cannot create a client
        from mlflow_sysmetrics.interruptions import reraise_interruption  # rarely needed

        reraise_interruption(error)
        return False
    return True


class RestRuns:
    """Speaks MLflow's REST protocol.

    Args:
        get_host_creds: MLflow's function, which returns fresh credentials at each call.
        tracking_uri: masked in messages.
        is_trusted: returns whether the server may see the credentials.
        timeouts: of a request.
    """

    def __init__(
        self,
        get_host_creds: Callable[[], Any],
        tracking_uri: str,
        is_trusted: Callable[[], bool] = lambda: True,
        timeouts: Timeouts = _TIMEOUTS,
    ) -> None:
        self._connection = RestConnection(get_host_creds)
        self._uri = tracking_uri
        self._is_trusted = is_trusted
        self._timeouts = timeouts

    def state(self, run_id: str) -> RunState:
        """Returns the state of a run."""

        def read(answer: Any) -> RunState:
            info = answer["run"]["info"]
            if run_id not in {info.get("run_id"), info.get("run_uuid")}:
                raise ValueError("another run")
            started_at = info.get("start_time")
            data = answer["run"].get("data", {})
            return RunState(
                str(info.get("status", "RUNNING")),
                None if started_at is None else int(started_at),
                {str(tag["key"]): str(tag.get("value", "")) for tag in data.get("tags", ())},
                _newest((one["key"], int(one.get("timestamp", 0))) for one in data.get("metrics", ())),
            )

        return self._ask(read, "GET", "runs/get", params={"run_id": run_id})

    def log_batch(self, run_id: str, metrics: Iterable[Metric], tags: Mapping[str, str]) -> None:
        """Writes metrics and tags of a run."""
        body = {
            "run_id": run_id,
            "metrics": json_of(metrics),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        self._ask(nothing, "POST", "runs/log-batch", json=body)

    def search(self, experiment_ids: Sequence[str], wanted: str, most: int) -> list[FoundRun]:
        """Returns the newest runs that a filter finds."""
        body = {
            "experiment_ids": list(experiment_ids),
            "filter": wanted,
            "max_results": most,
            "order_by": [_NEWEST],
        }
        return self._ask(_found, "POST", "runs/search", json=body)

    def experiment_ids(self, name: str | None) -> list[str]:
        """Returns the id of an experiment, none if it does not exist; without a name the ids of all."""
        if name is None:
            body = {"max_results": _MOST_EXPERIMENTS}
            return self._ask(_experiment_ids, "POST", "experiments/search", json=body)
        try:
            query = {"experiment_name": name}
            return self._ask(_experiment_ids, "GET", "experiments/get-by-name", params=query)
        except Fault as fault:
            if fault.error_code == _NOT_THERE:
                return []
            raise

    def close(self) -> None:
        """Closes the connection; the next call opens it again."""
        self._connection.close()

    def _ask(self, read: Callable[[Any], T], method: str, endpoint: str, **body: object) -> T:
        trusted = True
        try:
            trusted = self._is_trusted()
            path = f"{API}{endpoint}"
            answer = self._connection.send(method, path, self._timeouts, anonymous=not trusted, **body)
            found = answer.fault(self._uri)
            if found is None:
                return read_answer(answer.text, read, self._uri)
            fault = found if trusted or not found.refuses_credentials else _with_note(found, WITHHELD)
        except Exception as error:  # noqa: BLE001 - credential providers and auth plugins run in there too
            fault = fault_of_error(error, self._uri)
        self._connection.forget()
        raise fault  # outside the handler, so that it does not carry MLflow's exception, which quotes the URI


class ClientRuns:
    """Uses `MlflowClient`, for every store that is not plain REST.

    Args:
        client: an `MlflowClient`.
        tracking_uri: masked in messages.
    """

    def __init__(self, client: Any, tracking_uri: str) -> None:
        self._client = client
        self._uri = tracking_uri

    def state(self, run_id: str) -> RunState:
        """Returns the state of a run."""
        run = self._call(self._client.get_run, run_id)
        started_at = run.info.start_time
        return RunState(
            str(run.info.status),
            None if started_at is None else int(started_at),
            dict(run.data.tags),
            # In MLflow 2.8 only the protocol buffer has the time of a metric.
            _newest((one.key, int(one.timestamp)) for one in run.data.to_proto().metrics),
        )

    def log_batch(self, run_id: str, metrics: Iterable[Metric], tags: Mapping[str, str]) -> None:
        """Writes metrics and tags of a run."""
        from mlflow import entities

        points = [entities.Metric(*metric) for metric in metrics]
        pairs = [entities.RunTag(key, value) for key, value in tags.items()]
        self._call(self._client.log_batch, run_id, metrics=points, tags=pairs)

    def search(self, experiment_ids: Sequence[str], wanted: str, most: int) -> list[FoundRun]:
        """Returns the newest runs that a filter finds."""
        found = self._call(
            self._client.search_runs, list(experiment_ids), wanted, max_results=most, order_by=[_NEWEST]
        )
        return [FoundRun(run.info.run_id, run.info.start_time, dict(run.data.tags)) for run in found]

    def experiment_ids(self, name: str | None) -> list[str]:
        """Returns the id of an experiment, none if it does not exist; without a name the ids of all."""
        if name is None:
            found = self._call(self._client.search_experiments, max_results=_MOST_EXPERIMENTS)
        else:
            found = [self._call(self._client.get_experiment_by_name, name)]
        return [str(one.experiment_id) for one in found if one is not None]

    def close(self) -> None:
        """Does nothing: MLflow keeps its stores, and their connections, for the whole process."""

    def _call(self, method: Callable[..., Any], *arguments: object, **named: object) -> Any:
        try:
            return method(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - also what the store's database, file system or plugin raises
            fault = fault_of_error(error, self._uri)
        raise fault


def _newest(metrics: Iterable[tuple[str, int]]) -> int | None:
    return max((at for key, at in metrics if not key.startswith(_SYSTEM)), default=None)


def _found(answer: Any) -> list[FoundRun]:
    found = []
    for run in answer.get("runs", ()):
        info, tags = run["info"], run.get("data", {}).get("tags", ())
        started_at = info.get("start_time")
        found.append(
            FoundRun(
                str(info.get("run_id") or info["run_uuid"]),
                None if started_at is None else int(started_at),
                {str(tag["key"]): str(tag.get("value", "")) for tag in tags},
            )
        )
    return found


def _experiment_ids(answer: Any) -> list[str]:
    several = [answer["experiment"]] if "experiment" in answer else answer.get("experiments", ())
    return [str(one["experiment_id"]) for one in several]


def _with_note(fault: Fault, note: str) -> Fault:
    return Fault(
        f"{fault.reason}; {note}",
        fault.cause,
        status_code=fault.status_code,
        error_code=fault.error_code,
        retry_after=fault.retry_after,
    )


def json_of(metrics: Iterable[Metric]) -> list[dict[str, object]]:
    """Returns metrics as a request has them."""
    return [
        {"key": key, "value": _json(value), "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in metrics
    ]


def _json(value: float) -> float | str:
    """Returns a value as protobuf's JSON has it, in which NaN and infinities are strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
