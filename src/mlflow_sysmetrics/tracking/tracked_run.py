"""A run that is checked before the training starts and says truthfully how it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow_sysmetrics.errors import RunStartError
from mlflow_sysmetrics.tracking import mlflow_state
from mlflow_sysmetrics.tracking.failures import LAST_WORDS
from mlflow_sysmetrics.tracking.flight import Flight
from mlflow_sysmetrics.tracking.preflight import asked_for
from mlflow_sysmetrics.tracking.secrets import cleaned
from mlflow_sysmetrics.tracking.stores import FAILED, FINISHED, KILLED, RUNNING
from mlflow_sysmetrics.tracking.tries import Pace

_log = logging.getLogger("mlflow_sysmetrics")


@contextmanager
def tracked_run(  # noqa: PLR0913 - those of preflight, and one more
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
    if (active := mlflow_state.active_run_id()) is not None:
        raise RunStartError(
            f"Run {active} is active in this thread already, so no other can be. End it with "
            "mlflow.end_run() first, "
            f"or call tracked_run in another thread. {LAST_WORDS}",
            step=3,
        )
    asked = asked_for(experiment_name, run_name, tracking_uri, tags, params, run_id, check_artifacts)
    pace = Pace(max_retries=max_retries, timeout=timeout, backoff=tuple(backoff), deadline=deadline)
    flight = Flight(asked, pace, status_path)
    run_id = flight.fly().run_id
    try:
        run = mlflow_state.start_run(run_id, log_system_metrics=log_system_metrics)
        flight.say_run(RUNNING)
        yield run
    except BaseException as error:
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


def _end(flight: Flight, run_id: str, status: str, error: BaseException | None) -> None:
    """Ends the run, and says in the files how; what the body raised comes before what goes wrong here."""
    try:
        if mlflow_state.active_run_id() == run_id:
            mlflow_state.end_run(status)
        elif error is not None and status != FINISHED:  # `start_run` failed, or the body ended the run itself
            flight.end_run(status)
    except Exception as failed:
        flight.say_end(FAILED, error or failed)
        if error is None:
            raise
        _log.warning("run %s may be left RUNNING: %s", run_id, cleaned(str(failed), flight.uri))
        return
    flight.say_end(status, None if status == FINISHED else error)
