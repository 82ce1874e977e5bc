"""Keys, values and batches in the form that every MLflow accepts, written to runs by id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils import validation

from mlflow_sysmetrics.errors import shortened
from mlflow_sysmetrics.mlflow_api.one_attempt import Batch

_ILLEGAL = re.compile(r"[^\w.\- /]")
_LONGEST_KEY = int(getattr(validation, "MAX_ENTITY_KEY_LENGTH", 250))
_LONGEST_VALUE = int(getattr(validation, "MAX_PARAM_VAL_LENGTH", 500))
_LONGEST_TAG = int(getattr(validation, "MAX_TAG_VAL_LENGTH", 5000))
# The limits of one log-batch request in every MLflow: 1000 items, of which 100 parameters and 100 tags.
_PAIRS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000 - 2 * _PAIRS_PER_BATCH


def write(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Sequence[RunTag] = (),
) -> None:
    """Writes metrics, parameters and tags to a run, which need not be active, in batches that MLflow accepts.

    Raises:
        Exception: what MLflow raises.
    """
    for batch in batches(metrics, params, tags):
        client.log_batch(run_id, **batch._asdict())


def batches(
    metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
) -> Iterator[Batch]:
    """Yields batches that every MLflow accepts."""
    count = max(
        -(-len(metrics) // _METRICS_PER_BATCH),
        -(-len(params) // _PAIRS_PER_BATCH),
        -(-len(tags) // _PAIRS_PER_BATCH),
    )
    for batch in range(count):
        yield Batch(
            metrics[batch * _METRICS_PER_BATCH : (batch + 1) * _METRICS_PER_BATCH],
            params[batch * _PAIRS_PER_BATCH : (batch + 1) * _PAIRS_PER_BATCH],
            tags[batch * _PAIRS_PER_BATCH : (batch + 1) * _PAIRS_PER_BATCH],
        )


def params_of(prefix: str, values: Mapping[str, object]) -> dict[str, str]:
    """Returns parameters as MLflow accepts them, under distinct keys; long values end in "..."."""
    params: dict[str, str] = {}
    for name, value in values.items():
        key, count = key_of(prefix, name), 1
        while key in params:
            count += 1
            ending = f"_{count}"
            key = key_of(prefix, name)[: _LONGEST_KEY - len(ending)] + ending
        params[key] = shortened(str(value), _LONGEST_VALUE)
    return params


def key_of(prefix: str, name: str) -> str:
    """Returns a valid MLflow key for a user's name; characters that MLflow refuses become underscores.

    Args:
        prefix: what precedes the name and a slash; empty for the name alone.
        name: the name.
    """
    parts = [part for part in _ILLEGAL.sub("_", name).split("/") if part.strip(".")]
    key = "/".join(parts) or "_"
    return (f"{prefix}/{key}" if prefix else key)[:_LONGEST_KEY].rstrip("/")


def tag_value(value: object) -> str:
    """Returns the text of a tag, cut to the length that MLflow accepts."""
    return shortened(str(value), _LONGEST_TAG)
