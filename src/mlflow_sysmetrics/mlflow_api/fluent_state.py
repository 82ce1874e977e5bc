"""What is in force in this process as MLflow sees it: tracking URI, experiment, active run."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

# FOLDED active_runs: The runs that are active in a thread: MLflow logs to the last of them.


def _fluent() -> Any:
    from mlflow.tracking import fluent

    return fluent


def run_stack() -> list[Any]:
    """Returns MLflow's list of the runs that are active in this thread."""
    stack = _fluent()._active_run_stack  # noqa: SLF001 - `mlflow.active_run` tells the innermost one only
    found: list[Any] = stack if isinstance(stack, list) else stack.get()
    return found


def one_stack_for_all_threads() -> bool:
    """Returns whether a run that is active in one thread is active in all, as it was in MLflow 2.8."""
    return isinstance(_fluent()._active_run_stack, list)  # noqa: SLF001 - as above


@contextmanager
def only_active(*runs: Any) -> Iterator[None]:
    """Makes these the active runs of this thread for a ``with`` block, and then what was before."""
    stack = run_stack()
    before = list(stack)
    stack[:] = runs
    try:
        yield
    finally:
        stack[:] = before


def discard(run: Any) -> None:
    """Deletes a run that came too late: its trial has gone on without it."""
    finish_monitor(run.info.run_id)
    from mlflow import MlflowClient

    client = MlflowClient()
    client.set_terminated(run.info.run_id, "KILLED")
    client.delete_run(run.info.run_id)


def left_active(run_id: str | None) -> list[str]:
    """Takes the runs off this thread's stack that were started in it, and returns them, innermost first.

    Args:
        run_id: one that is taken off too, but not returned.
    """
    stack = run_stack()
    found = [str(run.info.run_id) for run in reversed(stack)]
    stack.clear()
    return [one for one in found if one != run_id]


def finish_monitor(run_id: str) -> None:
    """Ends the system metrics of a run, as `mlflow.end_run` does."""
    monitors = getattr(_fluent(), "run_id_to_system_metrics_monitor", {})
    monitor = monitors.pop(run_id, None)
    if monitor is not None:
        monitor.finish()


# FOLDED tracking_scope: The tracking URI and the experiment of a study, in force for as long as it runs.

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
    import mlflow
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    environ = {name: os.environ.get(name) for name in _VARIABLES}
    experiment_id = _fluent()._active_experiment_id  # noqa: SLF001 - there is no public way to put it back
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
        _fluent()._active_experiment_id = experiment_id  # noqa: SLF001 - as above
        for name, value in environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def use_experiment(experiment_id: str | None) -> None:
    """Puts an experiment in force within a `tracking_scope`, without asking the server for it."""
    _fluent()._active_experiment_id = experiment_id  # noqa: SLF001 - as above
    os.environ.pop(_EXPERIMENT_NAME, None)
    if experiment_id is None:
        os.environ.pop(_EXPERIMENT_ID, None)
    else:
        os.environ[_EXPERIMENT_ID] = experiment_id


def active_experiment_id() -> str | None:
    """Returns the experiment that was set; None if none was. MLflow's public function would create one."""
    found = _fluent()._active_experiment_id  # noqa: SLF001 - as above
    return None if found is None else str(found)


HOW_TO_SET = (
    "Set MLFLOW_TRACKING_URI, or call mlflow.set_tracking_uri(...), or pass tracking_uri=..., with "
    "the address "
    "of the tracking server."
)
_EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
_log = logging.getLogger("mlflow_sysmetrics")


class ExperimentChoice(NamedTuple):
    """Which experiment is meant: a name, or an id where there is no name."""

    name: str | None
    experiment_id: str | None


def version() -> str:
    """Returns the version of MLflow that is installed."""
    from mlflow.version import VERSION

    return str(VERSION)


def tracking_uri() -> str | None:
    """Returns the tracking URI that is set; None where MLflow would use its default, a local store."""
    import mlflow

    return str(mlflow.get_tracking_uri()) if mlflow.is_tracking_uri_set() else None


def known_schemes() -> frozenset[str]:
    """Returns the schemes that a tracking store is registered for."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    return frozenset(_tracking_store_registry._registry)  # noqa: SLF001 - there is no other list


def scheme_of(uri: str) -> str:
    """Returns the scheme by which MLflow looks for a store: "" of a path, no driver of a database."""
    from mlflow.utils.uri import get_uri_scheme

    return uri if uri in {"databricks", "databricks-uc", "uc"} else str(get_uri_scheme(uri))


def refuses_directories() -> bool:
    """Returns whether this MLflow refuses to keep runs in a directory, as 3.13 and newer do unless told."""
    from mlflow import environment_variables

    allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return allowed is not None and not allowed.get()


def server_runs_jobs() -> bool:
    """Returns whether a server started in this environment would start extra processes for jobs."""
    from mlflow import environment_variables

    variable = getattr(environment_variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", None)
    return variable is not None and bool(variable.get())


def run_id_to_resume() -> str | None:
    """Returns the run that `mlflow run` has made for this program; `mlflow.start_run` would resume it too."""
    return os.environ.get(_RUN_ID) or None


def experiment_choice(uri: str) -> ExperimentChoice:
    """Returns the experiment that `mlflow.start_run` would use, without asking the server for it."""
    from mlflow.tracking import fluent
    from mlflow.tracking.default_experiment import registry

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
    from mlflow.tracking.context import registry

    named = {"mlflow.runName": run_name} if run_name else {}
    resolved = registry.resolve_tags({**given, **named})
    return {str(key): str(value) for key, value in resolved.items()}


def adopt(uri: str, experiment_id: str) -> None:
    """Makes a tracking URI and an experiment those of `mlflow.start_run` and of child processes.

    `mlflow.set_experiment` would ask the server once more, with MLflow's own retries.
    """
    import mlflow
    from mlflow.tracking import fluent

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


def start_run(run_id: str, seconds: float) -> Any:
    """Makes a run the active one of this thread and returns it, without system metrics.

    MLflow reads and updates the run once more, with retries of its own, so it does that in a thread that is
    waited for only so long. What comes later is ended there.

    Raises:
        CallTimeout: it has not returned in time.
        Exception: what MLflow raises.
    """
    import mlflow

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
        if not (started and isinstance(error, CallTimeout)):  # it came at the last moment
            raise
    return started[0]


def start_system_metrics(run_id: str, wanted: bool | None) -> None:  # noqa: FBT001 - MLflow's argument
    """Starts the system metrics of an active run as `mlflow.start_run` does; `end_run` ends them."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking import fluent

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
    import mlflow

    active = active_run_ids()
    for inner in reversed(active[active.index(run_id) + 1 :]):
        _end_inner_run(inner, status)
    mlflow.end_run(status)


def _end_inner_run(run_id: str, status: str) -> None:
    import mlflow

    try:
        mlflow.end_run(status)
    except Exception as error:  # noqa: BLE001 - the run around it is to be ended all the same
        _log.warning("run %s may be left RUNNING: %s", run_id, cleaned(str(error), tracking_uri() or ""))


def _stack() -> list[Any]:
    """Returns MLflow's list of the runs that are active in this thread."""
    from mlflow.tracking import fluent

    stack = fluent._active_run_stack  # noqa: SLF001 - `mlflow.active_run` tells the innermost one only
    found: list[Any] = stack if isinstance(stack, list) else stack.get()
    return found
