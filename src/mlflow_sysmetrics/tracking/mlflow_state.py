"""What is in force in this process as MLflow sees it: tracking URI, experiment, active run."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_sysmetrics.tracking.bounded import TookTooLong, bounded
from mlflow_sysmetrics.tracking.secrets import cleaned

HOW_TO_SET = (
    "Set MLFLOW_TRACKING_URI, or call mlflow.set_tracking_uri(...), or pass tracking_uri=..., with "
    "the address "
    "of the tracking server."
)
_RUN_ID = "MLFLOW_RUN_ID"
_EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
_log = logging.getLogger("mlflow_sysmetrics")


class ExperimentChoice(NamedTuple):
    """Which experiment is meant: a name, or an id where there is no name."""

    name: str | None
    experiment_id: str | None


def version() -> str:
    """Returns the version of MLflow that is installed."""
    from mlflow.version import VERSION  # noqa: PLC0415 - importing us must not import MLflow

    return str(VERSION)


def tracking_uri() -> str | None:
    """Returns the tracking URI that is set; None where MLflow would use its default, a local store."""
    import mlflow  # noqa: PLC0415 - as above

    return str(mlflow.get_tracking_uri()) if mlflow.is_tracking_uri_set() else None


def known_schemes() -> frozenset[str]:
    """Returns the schemes that a tracking store is registered for."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry  # noqa: PLC0415 - as above

    return frozenset(_tracking_store_registry._registry)  # noqa: SLF001 - there is no other list


def scheme_of(uri: str) -> str:
    """Returns the scheme by which MLflow looks for a store: "" of a path, no driver of a database."""
    from mlflow.utils.uri import get_uri_scheme  # noqa: PLC0415 - as above

    return uri if uri in {"databricks", "databricks-uc", "uc"} else str(get_uri_scheme(uri))


def refuses_directories() -> bool:
    """Returns whether this MLflow refuses to keep runs in a directory, as 3.13 and newer do unless told."""
    from mlflow import environment_variables  # noqa: PLC0415 - as above

    allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return allowed is not None and not allowed.get()


def run_id_to_resume() -> str | None:
    """Returns the run that `mlflow run` has made for this program; `mlflow.start_run` would resume it too."""
    return os.environ.get(_RUN_ID) or None


def experiment_choice(uri: str) -> ExperimentChoice:
    """Returns the experiment that `mlflow.start_run` would use, without asking the server for it."""
    from mlflow.tracking import fluent  # noqa: PLC0415 - as above
    from mlflow.tracking.default_experiment import registry  # noqa: PLC0415 - as above

    active = getattr(fluent, "_active_experiment_id", None)
    if active and uri == tracking_uri():  # ids mean nothing on another server
        return ExperimentChoice(None, str(active))
    if name := os.environ.get(_EXPERIMENT_NAME):
        return ExperimentChoice(name, None)
    if chosen := os.environ.get(_EXPERIMENT_ID):
        return ExperimentChoice(None, chosen)
    return ExperimentChoice(None, str(registry.get_experiment_id()))


def run_tags(given: Mapping[str, str], run_name: str | None) -> dict[str, str]:
    """Returns the tags that `mlflow.start_run` would give: user, source, git, `sys.*`, and these."""
    from mlflow.tracking.context import registry  # noqa: PLC0415 - as above

    named = {"mlflow.runName": run_name} if run_name else {}
    resolved = registry.resolve_tags({**given, **named})
    return {str(key): str(value) for key, value in resolved.items()}


def adopt(uri: str, experiment_id: str) -> None:
    """Makes a tracking URI and an experiment those of `mlflow.start_run` and of child processes.

    `mlflow.set_experiment` would ask the server once more, with MLflow's own retries.
    """
    import mlflow  # noqa: PLC0415 - as above
    from mlflow.tracking import fluent  # noqa: PLC0415 - as above

    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)
    os.environ.pop(_RUN_ID, None)  # it is resumed now, and only once; `mlflow.start_run` does the same
    if hasattr(fluent, "_active_experiment_id"):
        fluent._active_experiment_id = experiment_id  # noqa: SLF001 - as above
        if _EXPERIMENT_NAME not in os.environ:  # MLflow refuses a name and an id that differ
            os.environ[_EXPERIMENT_ID] = experiment_id
    else:
        mlflow.set_experiment(experiment_id=experiment_id)


def active_run_ids() -> tuple[str, ...]:
    """Returns the runs that are active in this thread, outermost first."""
    return tuple(str(run.info.run_id) for run in _stack())


def start_run(run_id: str, seconds: float) -> Any:  # noqa: ANN401 - MLflow's ActiveRun
    """Makes a run the active one of this thread and returns it, without system metrics.

    MLflow reads and updates the run once more, with retries of its own, so it does that in a thread that is
    waited for only so long. What comes later is ended there.

    Raises:
        TookTooLong: it has not returned in time.
        Exception: what MLflow raises.
    """
    import mlflow  # noqa: PLC0415 - as above

    # Started in that thread, a process that collects metrics would inherit its blocked signals.
    known = inspect.signature(mlflow.start_run).parameters
    named = {"log_system_metrics": False} if "log_system_metrics" in known else {}
    here = _stack()
    lock = threading.Lock()
    started: list[Any] = []
    gone = False

    def start() -> None:
        run = mlflow.start_run(run_id=run_id, **named)
        with lock:
            if not gone:
                if _stack() is not here:  # MLflow 2.8 has one for all threads
                    here.append(_stack().pop())
                started.append(run)
                return
        mlflow.end_run("FAILED")

    try:
        bounded(start, seconds)
    except BaseException as error:  # also Ctrl-C: nobody takes the run that may still come
        with lock:
            gone = True
        if not (started and isinstance(error, TookTooLong)):  # it came at the last moment
            raise
    return started[0]


def start_system_metrics(run_id: str, wanted: bool | None) -> None:  # noqa: FBT001 - MLflow's argument
    """Starts the system metrics of an active run as `mlflow.start_run` does; `end_run` ends them."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING  # noqa: PLC0415 - as above
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415 - as above
    from mlflow.tracking import fluent  # noqa: PLC0415 - as above

    if not (MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() if wanted is None else wanted):
        return
    # MLflow 2.8 knows no resumed runs.
    named = {} if version().startswith("2.8.") else {"resume_logging": True}
    try:
        monitor = SystemMetricsMonitor(run_id, **named)
        fluent.run_id_to_system_metrics_monitor[run_id] = monitor
        monitor.start()
    except Exception as error:  # noqa: BLE001 - as MLflow does: a run without them is a run
        _log.error("system metrics could not be started: %s", error)


def end_run(run_id: str, status: str) -> None:
    """Ends an active run of this thread and its system metrics, and first those that it has left open.

    Raises:
        Exception: what MLflow raises for the run itself; what it raises for another is logged.
    """
    import mlflow  # noqa: PLC0415 - as above

    active = active_run_ids()
    for inner in reversed(active[active.index(run_id) + 1 :]):
        _end_inner_run(inner, status)
    mlflow.end_run(status)


def _end_inner_run(run_id: str, status: str) -> None:
    import mlflow  # noqa: PLC0415 - as above

    try:
        mlflow.end_run(status)
    except Exception as error:  # noqa: BLE001 - the run around it is to be ended all the same
        _log.warning("run %s may be left RUNNING: %s", run_id, cleaned(str(error), tracking_uri() or ""))


def _stack() -> list[Any]:
    """Returns MLflow's list of the runs that are active in this thread."""
    from mlflow.tracking import fluent  # noqa: PLC0415 - as above

    stack = fluent._active_run_stack  # noqa: SLF001 - `mlflow.active_run` tells the innermost one only
    found: list[Any] = stack if isinstance(stack, list) else stack.get()
    return found
