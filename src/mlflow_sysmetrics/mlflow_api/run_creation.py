"""Creates runs with one attempt, which nothing repeats once the caller has stopped waiting for it.

MLflow's own client tries for four minutes. A caller that gives up before that gets its run all the same, as a
second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_sysmetrics.mlflow_api import clients, fluent_state
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.runtime.bounded_calls import bounded


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
    try:
        created = bounded(
            lambda: client.create_run(experiment_id, start_time=started_at, tags=resolved, run_name=name),
            seconds,
        )
    except Exception as error:  # noqa: BLE001 - also what the store's database, file system or plugin raises
        fault = fault_of_error(error, tracking_uri, seconds=seconds)
    else:
        return str(created.info.run_id)
    raise fault  # outside the handler, so that it does not carry MLflow's exception, which quotes the URI
