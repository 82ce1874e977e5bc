"""The run that is active in this thread: chosen, started and ended as MLflow does it, in bounded time."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from mlflow_sysmetrics.errors import NoActiveRunError
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.runtime.bounded_calls import bounded

_log = logging.getLogger("mlflow_sysmetrics")


def active_run_id() -> str | None:
    """Returns the id of the run that is active in this thread, or None."""
    import mlflow

    run = mlflow.active_run()
    return None if run is None else str(run.info.run_id)


def chosen_run_id(run_id: str | None, *, by: str) -> str:
    """Returns the given run id, or the id of the active run.

    Args:
        run_id: the id that the user passed, if any.
        by: the public name that needs a run, for the message.

    Raises:
        NoActiveRunError: no id was given and no run is active in this thread.
        TypeError: the id is not a string.
        ValueError: the id is empty.
    """
    if run_id is not None and not isinstance(run_id, str):
        raise TypeError(f"run_id must be a string such as run.info.run_id, got {run_id!r}")
    if run_id is not None and not run_id.strip():
        raise ValueError(f"run_id must be the id of a run such as run.info.run_id, got {run_id!r}")
    chosen = run_id or active_run_id()
    if chosen is None:
        raise NoActiveRunError(
            f"{by} needs a run to write to, and none is active in this thread: "
            "use it inside `with mlflow.start_run():`, or pass run_id=..."
        )
    return chosen


def start_run(run_id: str, seconds: float) -> Any:
    """Makes a run the active one of this thread and returns it, without system metrics.

    MLflow reads and updates the run once more, with its own retries. This happens in another thread, for
    which the caller waits no longer than the given seconds. A run that starts later is ended there.

    Raises:
        CallTimeout: the run did not start in time.
        Exception: what MLflow raises.
    """
    import mlflow

    # Started in that thread, a process that collects metrics would inherit its blocked signals.
    known = inspect.signature(mlflow.start_run).parameters
    named = {"log_system_metrics": False} if "log_system_metrics" in known else {}
    shared = fluent_state.one_stack_for_all_threads()

    def start() -> Any:
        run = mlflow.start_run(run_id=run_id, **named)
        return run if shared else fluent_state.run_stack().pop()

    def end(run: Any) -> None:
        if not shared:
            fluent_state.run_stack().append(run)
        mlflow.end_run("FAILED")

    run = bounded(start, seconds, late=end)
    if not shared:
        fluent_state.run_stack().append(run)
    return run


def enter_run(run: Any, wanted: bool | None) -> None:  # noqa: FBT001 - MLflow's argument
    """Makes a new run the active one of this thread, with its system metrics, and without a request.

    Args:
        run: as `MlflowClient` returns it.
        wanted: as in `start_system_metrics`.
    """
    import mlflow

    start_system_metrics(str(run.info.run_id), wanted, new_run=run)
    fluent_state.run_stack().append(mlflow.ActiveRun(run))


def start_system_metrics(
    run_id: str,
    wanted: bool | None,  # noqa: FBT001 - MLflow's argument
    *,
    new_run: Any = None,
) -> None:
    """Starts the system metrics of an active run as `mlflow.start_run` does; `end_run` ends them.

    Args:
        run_id: the run.
        wanted: as in `mlflow.start_run`; None follows the environment.
        new_run: the run if it is a new one; `fluent_state.run_being_started` reads it here, under this name.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    if not (MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() if wanted is None else wanted):
        return
    # MLflow 2.8 does not know resumed runs.
    named = {} if fluent_state.version().startswith("2.8.") else {"resume_logging": new_run is None}
    try:
        monitor = SystemMetricsMonitor(run_id, **named)
        fluent_state.registered_monitors()[run_id] = monitor
        monitor.start()
    except Exception as error:  # noqa: BLE001 - as MLflow: a run without system metrics is still a run
        _log.error("system metrics could not be started: %s", _masked(error))


def end_run(run_id: str, status: str) -> None:
    """Ends an active run of this thread and its system metrics, after the runs that were left open in it.

    Raises:
        Exception: what MLflow raises for the run itself; what it raises for another is logged.
    """
    import mlflow

    active = fluent_state.active_run_ids()
    for inner in reversed(active[active.index(run_id) + 1 :]):
        _end_inner_run(inner, status)
    mlflow.end_run(status)


def _end_inner_run(run_id: str, status: str) -> None:
    import mlflow

    try:
        mlflow.end_run(status)
    except Exception as error:  # noqa: BLE001 - the outer run must end all the same
        _log.warning("run %s may be left RUNNING: %s", run_id, _masked(error))


def _masked(error: Exception) -> str:
    return fault_of_error(error, fluent_state.tracking_uri() or "").reason
