"""Writes into runs in pieces that MLflow takes, by id: no run needs to be active for that."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

# MLflow's limits for one request, in every version.
_METRICS_AT_ONCE = 1000
_PAIRS_AT_ONCE = 100


def write(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Sequence[RunTag] = (),
) -> None:
    """Writes metrics, parameters and tags of a run.

    Raises:
        Exception: what MLflow raises.
    """
    # A request has at most a thousand of all three together.
    metrics_at_once = _METRICS_AT_ONCE - 2 * _PAIRS_AT_ONCE
    pieces = max(
        -(-len(metrics) // metrics_at_once),
        -(-len(params) // _PAIRS_AT_ONCE),
        -(-len(tags) // _PAIRS_AT_ONCE),
    )
    for piece in range(pieces):
        client.log_batch(
            run_id,
            metrics=metrics[piece * metrics_at_once : (piece + 1) * metrics_at_once],
            params=params[piece * _PAIRS_AT_ONCE : (piece + 1) * _PAIRS_AT_ONCE],
            tags=tags[piece * _PAIRS_AT_ONCE : (piece + 1) * _PAIRS_AT_ONCE],
        )
