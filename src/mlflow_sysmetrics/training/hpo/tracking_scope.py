"""The tracking URI and the experiment of a study, in force for as long as it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import mlflow
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

_RUN_ID = "MLFLOW_RUN_ID"
_EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
# MLflow sets the first and the last of these itself, and takes away the second (at every end of a run).
_VARIABLES = ("MLFLOW_TRACKING_URI", _RUN_ID, _EXPERIMENT_NAME, _EXPERIMENT_ID)


@contextmanager
def tracking_scope(tracking_uri: str | None, experiment_name: str | None) -> Iterator[bool]:
    """Puts a tracking URI and an experiment in force for a ``with`` block, and then what was before.

    MLFLOW_RUN_ID is put away for that time: the first run that is started would resume that one instead
    (https://github.com/mlflow/mlflow/issues/15713).

    Args:
        tracking_uri: None leaves the one that is in force.
        experiment_name: made where there is none of that name; None leaves the one that is in force, or the
            default of another server.

    Yields:
        Whether the tracking URI is another one than before.
    """
    environ = {name: os.environ.get(name) for name in _VARIABLES}
    experiment_id = fluent._active_experiment_id  # noqa: SLF001 - there is no public way to put it back
    elsewhere = tracking_uri is not None and tracking_uri != mlflow.get_tracking_uri()
    try:
        os.environ.pop(_RUN_ID, None)
        with ExitStack() as stack:
            if elsewhere:
                stack.enter_context(_use_tracking_uri(tracking_uri))
                use_experiment(None)  # an id means nothing on another server
            if experiment_name is not None:
                os.environ.pop(_EXPERIMENT_NAME, None)  # the id alone counts, also for child processes
                mlflow.set_experiment(experiment_name)
            yield elsewhere
    finally:
        fluent._active_experiment_id = experiment_id  # noqa: SLF001 - as above
        for name, value in environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def use_experiment(experiment_id: str | None) -> None:
    """Puts an experiment in force within a `tracking_scope`, without asking the server for it."""
    fluent._active_experiment_id = experiment_id  # noqa: SLF001 - as above
    os.environ.pop(_EXPERIMENT_NAME, None)
    if experiment_id is None:
        os.environ.pop(_EXPERIMENT_ID, None)
    else:
        os.environ[_EXPERIMENT_ID] = experiment_id
