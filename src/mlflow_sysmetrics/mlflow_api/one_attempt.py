"""Writes with one attempt each, which nothing repeats once the caller has stopped waiting for it.

MLflow's own client tries for four minutes. A caller that gives up before that gets its run all the same, as a
second one, and a write that arrives late replaces what was written after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.runs import Metric
from mlflow_sysmetrics.runtime.bounded_calls import bounded

T = TypeVar("T")


def create_run(
    client: Any,
    tracking_uri: str,
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    *,
    started_at: int | None,
    seconds: float,
) -> str:
    """Creates a run, which is active nowhere, and returns its id.

    Args:
        client: of MLflow, for stores that are not plain REST.
        tracking_uri: of that client.
        experiment_id: the experiment of the run.
        name: the name of the run.
        tags: its tags, besides those that `mlflow.start_run` would set.
        started_at: in milliseconds since 1970; None for now.
        seconds: longest wait.

    Raises:
        Fault: the run was not created, or the answer did not come in time; then it may exist all the same.
    """
    resolved = fluent_state.run_tags(tags, name)
    if clients.is_plain_rest(fluent_state.store_of(client), "create_run"):
        store = RestStore(tracking_uri)
        return store.create_run(experiment_id, name, resolved, seconds, started_at=started_at)
    created = _bounded(
        lambda: client.create_run(experiment_id, start_time=started_at, tags=resolved, run_name=name),
        tracking_uri,
        seconds,
    )
    return str(created.info.run_id)


class Batch(NamedTuple):
    """MLflow's `Metric`, `Param` and `RunTag` objects, as many as one request may have."""

    metrics: Sequence[Any]
    params: Sequence[Any]
    tags: Sequence[Any]


def log_batch(client: Any, tracking_uri: str, run_id: str, batch: Batch, seconds: float) -> None:
    """Writes metrics, parameters and tags to a run.

    Args:
        client: of MLflow, for stores that are not plain REST.
        tracking_uri: of that client.
        run_id: the run.
        batch: what to write.
        seconds: longest wait.

    Raises:
        Fault: the server refused them, or did not answer in time; then it may have them all the same.
    """
    metrics, params, tags = batch.metrics, batch.params, batch.tags
    if clients.is_plain_rest(fluent_state.store_of(client)):
        RestStore(tracking_uri).log_batch(
            run_id,
            [Metric(one.key, one.value, one.timestamp, one.step) for one in metrics],
            {one.key: one.value for one in params},
            {one.key: one.value for one in tags},
            seconds,
        )
        return
    _bounded(
        lambda: client.log_batch(run_id, metrics=metrics, params=params, tags=tags), tracking_uri, seconds
    )


def set_terminated(  # noqa: PLR0917 - the last is what a caller adds for each attempt
    client: Any, tracking_uri: str, run_id: str, status: str, ended_at: int | None, seconds: float
) -> None:
    """Ends a run.

    Args:
        client: of MLflow, for stores that are not plain REST.
        tracking_uri: of that client.
        run_id: the run.
        status: its last status, such as "FINISHED".
        ended_at: in milliseconds since 1970; None for now.
        seconds: longest wait.

    Raises:
        Fault: the server refused it, or the answer did not come in time; then it may have ended all the same.
    """
    if clients.is_plain_rest(fluent_state.store_of(client), "update_run_info"):
        end_time = time.time_ns() // 1_000_000 if ended_at is None else ended_at
        RestStore(tracking_uri).set_status(run_id, status, end_time, seconds)
        return
    _bounded(lambda: client.set_terminated(run_id, status, ended_at), tracking_uri, seconds)


def _bounded(call: Callable[[], T], tracking_uri: str, seconds: float) -> T:
    try:
        return bounded(call, seconds)
    except Exception as error:  # noqa: BLE001 - also what the store's database, file system or plugin raises
        fault = fault_of_error(error, tracking_uri, seconds=seconds)
    raise fault  # outside the handler, so that it does not carry MLflow's exception, which quotes the URI
