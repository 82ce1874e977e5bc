"""A run that is checked before the training starts and says truthfully how it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow_sysmetrics.errors import RunStartError
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED, KILLED, RUNNING
from mlflow_sysmetrics.preflight.api import asked_for
from mlflow_sysmetrics.preflight.failures import LAST_WORDS
from mlflow_sysmetrics.preflight.preflight_run import PreflightRun
from mlflow_sysmetrics.preflight.tries import Pace

_log = logging.getLogger("mlflow_sysmetrics")


@contextmanager
def tracked_run(
    experiment_name: str | None = None,
    run_name: str | None = None,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    max_retries: int = 5,
    timeout: float = 30.0,
    backoff: Sequence[float] = (10, 20, 30),
    deadline: float = 240.0,
    check_artifacts: bool = False,
    status_path: str | os.PathLike[str] | None = None,
    log_system_metrics: bool | None = None,
) -> Iterator[Any]:
    """Runs the body of a ``with`` block inside a run that is known to be tracked.

    The run ends FINISHED, FAILED where the body raises, KILLED on Ctrl-C; ``sys.exit`` counts by its code.
    `mlflow_info.json` becomes an artifact of the run.

    Args:
        experiment_name: as of `preflight`, and so are all but the last.
        run_name: as above.
        tracking_uri: as above.
        tags: as above.
        params: as above.
        run_id: as above.
        max_retries: as above.
        timeout: in seconds, as above.
        backoff: in seconds, as above.
        deadline: in seconds, as above.
        check_artifacts: as above.
        status_path: as above.
        log_system_metrics: as of `mlflow.start_run`.

    Yields:
        MLflow's active run.

    Raises:
        PreflightError: the run cannot be tracked; the body is not entered.
        SettingsError: an argument makes no sense.
    """
    if active := fluent_state.active_run_ids():
        raise RunStartError(
            f"Run {active[-1]} is active in this thread already, so no other can be. End it with "
            "mlflow.end_run() first, "
            f"or call tracked_run in another thread. {LAST_WORDS}",
            step=3,
        )
    asked = asked_for(experiment_name, run_name, tracking_uri, tags, params, run_id, check_artifacts)
    pace = Pace(max_retries=max_retries, timeout=timeout, backoff=backoff, deadline=deadline)
    flight = PreflightRun(asked, pace, status_path)
    started: list[Any] = []
    try:
        flight.fly(lambda run_id, seconds: started.append(active_runs.start_run(run_id, seconds)))
    except BaseException as error:
        if started:  # Ctrl-C at the last moment; MLflow would end it as FINISHED at exit
            _end(flight, started[0].info.run_id, status_of(error), error)
        raise
    run_id = started[0].info.run_id
    try:
        active_runs.start_system_metrics(run_id, log_system_metrics)
        flight.say_run(RUNNING)
        yield started[0]
    except BaseException as error:  # whatever the body raises is how its run ends
        _end(flight, run_id, status_of(error), error)
        raise
    _end(flight, run_id, FINISHED, None)


def status_of(error: BaseException) -> str:
    """Returns how a run ends whose body raised this."""
    if isinstance(error, KeyboardInterrupt):
        return KILLED
    if isinstance(error, SystemExit) and error.code in {None, 0}:
        return FINISHED
    return FAILED


def _end(flight: PreflightRun, run_id: str, status: str, error: BaseException | None) -> None:
    """Ends the run, and says in the files how; what the body raised comes before what goes wrong here."""
    ended: str | None = status
    try:
        if run_id in fluent_state.active_run_ids():
            active_runs.end_run(run_id, status)
        else:
            ended = _ended_by_the_body(flight, status)
    except Exception as failed:  # MLflow's, its store's or a plugin's
        flight.say_over(error or failed, completed=False)  # the run's file goes on to say RUNNING
        if error is None:
            raise
        _log.warning("run %s may be left RUNNING: %s", run_id, cleaned(str(failed), flight.uri))
        return
    if ended is None:
        flight.say_over(None if status == FINISHED else error, completed=status == FINISHED)
    else:
        by_itself = None if ended == status else RuntimeError(f"The program has ended its run as {ended}.")
        flight.say_end(ended, error if status != FINISHED else by_itself)


def _ended_by_the_body(flight: PreflightRun, status: str) -> str | None:
    """Returns how a run has ended that is not active any more; None where that cannot be told."""
    found = flight.status_of_run()
    # A body that raises after it has ended its run has failed all the same.
    if found == RUNNING or (found == FINISHED and status != FINISHED):
        flight.set_status(status)
        return status
    return found
