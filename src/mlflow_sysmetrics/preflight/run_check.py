"""Step 4: whether a run that was started takes what is logged, and gives it back."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.stores import RUNNING, Store, StoredRun
from mlflow_sysmetrics.preflight.tries import Tries

METRIC = ("preflight/ok", 1.0)
_RUN_ID = re.compile(r"\w[\w\-]{0,255}", re.ASCII)  # of MLflow; it goes into paths and file names
_AT_ONCE = 100  # parameters and tags that MLflow takes in one batch


def check_run(
    store: Store, tries: Tries, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> StoredRun:
    """Writes a metric, parameters and tags to a run, and returns it as it is read back.

    Raises:
        Fault: the run is not RUNNING, or does not have the metric.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise Fault(f"the server gave {run_id!r} as the id of the run", Cause.NOT_READ_BACK)
    left_params, left_tags = list(params.items()), list(tags.items())
    first = True
    while first or left_params or left_tags:
        first = False
        batch = dict(left_params[:_AT_ONCE]), dict(left_tags[:_AT_ONCE])
        left_params, left_tags = left_params[_AT_ONCE:], left_tags[_AT_ONCE:]
        _write(store, tries, run_id, *batch)
    return tries.ask(lambda seconds: _read_back(store, run_id, seconds))


def _write(
    store: Store, tries: Tries, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    tries.ask(lambda seconds: store.log(run_id, METRIC, params, tags, seconds))


def _read_back(store: Store, run_id: str, seconds: float) -> StoredRun:
    found = store.run(run_id, seconds)
    key, value = METRIC
    if found.run_id != run_id:
        raise Fault(f"run {run_id} was asked for, and {found.run_id} came", Cause.NOT_READ_BACK)
    if found.status != RUNNING:
        raise Fault(f"run {run_id} was started, and is {found.status}", Cause.NOT_READ_BACK)
    if found.metrics.get(key) != value:
        read = found.metrics.get(key, "nothing")
        raise Fault(f"{key} = {value:g} was written to run {run_id}, and {read} is read", Cause.NOT_READ_BACK)
    return found
