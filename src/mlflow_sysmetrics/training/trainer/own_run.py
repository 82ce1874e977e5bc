"""A run for a training that was started without one. Imports without torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.active_runs import active_run_id
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FINISHED, KILLED
from mlflow_sysmetrics.preflight.context import status_of
from mlflow_sysmetrics.training.trainer.resume import run_to_resume

_logger = logging.getLogger("mlflow_sysmetrics")


@contextmanager
def run_if_none_is_active(run_id: str | None, directory: Path | None, *, resume: bool) -> Iterator[None]:
    """Keeps a run active inside the ``with`` block: the user's, or else one of the training's own.

    A run of its own ends with the block: FINISHED, FAILED after an exception, KILLED after Ctrl-C or if the
    trial was pruned. It continues the run of the checkpoints, if there is one.

    Args:
        run_id: the run that the user named; nothing is started then.
        directory: directory of the checkpoints.
        resume: whether to resume from them.
    """
    if run_id is not None or active_run_id() is not None:
        yield
        return
    import mlflow

    resumed = run_to_resume(directory) if resume and directory is not None else None
    run = mlflow.start_run(run_id=resumed)
    try:
        yield
    except BaseException as error:  # Ctrl-C, too
        _end(run.info.run_id, KILLED if type(error).__name__ == "TrialPruned" else status_of(error))
        raise
    _end(run.info.run_id, FINISHED)


def _end(run_id: str, status: str) -> None:
    if run_id not in fluent_state.active_run_ids():
        return  # the program has ended it itself
    try:
        active_runs.end_run(run_id, status)
    except Exception as error:  # noqa: BLE001 - MLflow's or its store's; must not hide the training's end
        reraise_interruption(error)
        _logger.warning("mlflow-sysmetrics: run %s may be left RUNNING: %s", run_id, cleaned(str(error)))
