"""MLflow's state in this process: the one module that touches its module globals and private attributes.

Tracking URI, experiment, active runs, monitors, registries. Importing this module does not import MLflow.
What MLflow has not loaded yet is read as empty where the function says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from types import FrameType, ModuleType
from typing import Any, NamedTuple

HOW_TO_SET = (
    "Set MLFLOW_TRACKING_URI, or call mlflow.set_tracking_uri(...), or pass tracking_uri=..., with the "
    "address of the tracking server."
)

_FLUENT = "mlflow.tracking.fluent"
# Modules that start runs, and the local variable in which they have the new one.
_STARTS_RUNS = {_FLUENT: "active_run_obj", "mlflow_sysmetrics.mlflow_api.active_runs": "new_run"}
_HEADERS = "mlflow.tracking.request_header.registry"
_RUN_ID = "MLFLOW_RUN_ID"
_EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
# MLflow sets the first and the last of these itself, and removes the second at every end of a run.
_VARIABLES = ("MLFLOW_TRACKING_URI", _RUN_ID, _EXPERIMENT_NAME, _EXPERIMENT_ID)


class ExperimentChoice(NamedTuple):
    """The experiment to use: a name, or an id if there is no name."""

    name: str | None
    experiment_id: str | None


# What is installed and configured.


def version() -> str:
    """Returns the version of the installed MLflow, without importing it."""
    loaded = sys.modules.get("mlflow.version")
    if loaded is not None:
        return str(loaded.VERSION)
    for name in ("mlflow", "mlflow-skinny"):
        with suppress(PackageNotFoundError):
            return distribution_version(name)
    from mlflow.version import VERSION

    return str(VERSION)


def tracking_uri() -> str | None:
    """Returns the tracking URI that is set; None if MLflow would use its default, a local store."""
    import mlflow

    return str(mlflow.get_tracking_uri()) if mlflow.is_tracking_uri_set() else None


def current_tracking_uri() -> str:
    """Returns the tracking URI that MLflow uses now, which may be its default."""
    from mlflow.tracking import get_tracking_uri

    return str(get_tracking_uri())


def known_schemes() -> frozenset[str]:
    """Returns the schemes that a tracking store is registered for."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    return frozenset(_tracking_store_registry._registry)


def scheme_of(uri: str) -> str:
    """Returns the scheme by which MLflow finds a store: "" for a path, without the driver of a database."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.uri import get_uri_scheme

    if uri in {"databricks", "databricks-uc", "uc"}:
        return uri
    try:
        return str(get_uri_scheme(uri))
    except MlflowException:  # what begins like a database that it knows, such as sqlite3
        return uri.partition(":")[0].lower()


def refuses_directories() -> bool:
    """Returns whether this MLflow refuses to keep runs in a directory: 3.13 and newer do by default."""
    from mlflow import environment_variables

    allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return allowed is not None and not allowed.get()


def auth_plugins() -> frozenset[str]:
    """Returns the names that MLFLOW_TRACKING_AUTH may have here."""
    from mlflow.tracking.request_auth.registry import _request_auth_provider_registry

    return frozenset(str(provider.get_name()) for provider in _request_auth_provider_registry)


def headers_of_plugins() -> Mapping[str, str]:
    """Returns the headers that plugins add to MLflow's requests; none if MLflow has sent no request yet."""
    registry = sys.modules.get(_HEADERS)
    if registry is None:
        return {}
    try:
        headers: Mapping[str, str] = registry.resolve_request_headers()
    except Exception as error:  # noqa: BLE001 - of a plugin, which has failed the request already
        from mlflow_sysmetrics.interruptions import reraise_interruption  # rarely needed

        reraise_interruption(error)
        return {}
    return headers


def context_providers(registry: ModuleType) -> list[str]:
    """Returns the class names of the providers that MLflow asks for tags.

    Args:
        registry: MLflow's module of that registry.
    """
    providers = getattr(registry, "_run_context_provider_registry", None)
    return [type(provider).__name__ for provider in getattr(providers, "_registry", ())]


# Clients.


def store_of(client: Any) -> Any:
    """Returns the tracking store of an `MlflowClient`; None if this MLflow keeps it elsewhere."""
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def record_logged_model(client: Any, run_id: str, model: Any) -> None:
    """Lists a model among the models of a run, as `Model.log` of MLflow 2 does."""
    client._record_logged_model(run_id, model)


# Active runs.


def run_stack() -> list[Any]:
    """Returns MLflow's list of the active runs of this thread; `mlflow.active_run` returns only the last."""
    stack = _fluent()._active_run_stack
    runs: list[Any] = stack if isinstance(stack, list) else stack.get()
    return runs


def one_stack_for_all_threads() -> bool:
    """Returns whether a run that is active in one thread is active in all, as in MLflow 2.8."""
    return isinstance(_fluent()._active_run_stack, list)


def autologging() -> tuple[str, ...]:
    """Returns the names of the frameworks whose autologging is on; none if MLflow has not loaded it."""
    module = sys.modules.get("mlflow.utils.autologging_utils")
    integrations = getattr(module, "AUTOLOGGING_INTEGRATIONS", {})
    # A framework that is only imported has no settings yet.
    return tuple(name for name, chosen in dict(integrations).items() if chosen.get("disable") is False)


def active_run_ids() -> tuple[str, ...]:
    """Returns the active runs of this thread, outermost first."""
    return tuple(str(run.info.run_id) for run in run_stack())


@contextmanager
def only_active(*runs: Any) -> Iterator[None]:
    """Makes these the active runs of this thread for a ``with`` block, then restores the previous ones."""
    stack = run_stack()
    before = list(stack)
    stack[:] = runs
    try:
        yield
    finally:
        stack[:] = before


def left_active(run_id: str | None) -> list[str]:
    """Clears the stack of this thread and returns the runs that were on it, innermost first.

    Args:
        run_id: a run that is left out of the result.
    """
    stack = run_stack()
    run_ids = [str(run.info.run_id) for run in reversed(stack)]
    stack.clear()
    return [one for one in run_ids if one != run_id]


def run_being_started(frame: FrameType | None, run_id: str) -> Any:
    """Returns the run that a frame of `mlflow.start_run`, or of `active_runs`, is starting; None otherwise.

    Args:
        frame: the caller's.
        run_id: the run, which proves that the local variable is the right one.
    """
    variable = None if frame is None else _STARTS_RUNS.get(str(frame.f_globals.get("__name__")))
    if frame is None or variable is None:
        return None
    run = frame.f_locals.get(variable)
    return run if getattr(getattr(run, "info", None), "run_id", None) == run_id else None


def start_run_that_asks(frame: FrameType) -> FrameType | None:
    """Returns the frame of the `mlflow.start_run` for which MLflow collects tags; None for anything else.

    Args:
        frame: the caller of a provider's `tags`.
    """
    outer = frame.f_back
    if outer is None or outer.f_code.co_name != "start_run" or outer.f_globals.get("__name__") != _FLUENT:
        return None
    return outer


# Monitors of system metrics.


def registered_monitors() -> dict[str, Any]:
    """Returns MLflow's register of the monitors of active runs; an empty one if it has none yet."""
    monitors = getattr(sys.modules.get(_FLUENT), "run_id_to_system_metrics_monitor", None)
    return monitors if isinstance(monitors, dict) else {}


def finish_monitor(run_id: str) -> None:
    """Ends the system metrics of a run, as `mlflow.end_run` does."""
    monitor = registered_monitors().pop(run_id, None)
    if monitor is not None:
        monitor.finish()


# Current experiments and tracking URIs.


def active_experiment_id() -> str | None:
    """Returns the experiment that was set; None if none was. MLflow's public function would create one."""
    experiment_id = getattr(_fluent(), "_active_experiment_id", None)
    return None if experiment_id is None else str(experiment_id)


def use_experiment(experiment_id: str | None) -> None:
    """Makes an experiment the current one within a `tracking_scope`, without a request to the server."""
    _fluent()._active_experiment_id = experiment_id
    os.environ.pop(_EXPERIMENT_NAME, None)
    if experiment_id is None:
        os.environ.pop(_EXPERIMENT_ID, None)
    else:
        os.environ[_EXPERIMENT_ID] = experiment_id


@contextmanager
def tracking_scope(tracking_uri: str | None, experiment_name: str | None) -> Iterator[bool]:
    """Makes a tracking URI and an experiment the current ones for a ``with`` block, then restores both.

    MLFLOW_RUN_ID is removed for that time, because the first run that starts would resume that run instead
    (https://github.com/mlflow/mlflow/issues/15713).

    Args:
        tracking_uri: None keeps the current one.
        experiment_name: created if it does not exist; None keeps the current one, or means the default of
            another server.

    Yields:
        Whether the tracking URI differs from the previous one.
    """
    import mlflow
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    environ = {name: os.environ.get(name) for name in _VARIABLES}
    experiment_id = _fluent()._active_experiment_id
    elsewhere = tracking_uri is not None and tracking_uri != mlflow.get_tracking_uri()
    try:
        os.environ.pop(_RUN_ID, None)
        with ExitStack() as stack:
            if elsewhere:
                stack.enter_context(_use_tracking_uri(tracking_uri))
                use_experiment(None)  # an id means nothing on another server
            if experiment_name is not None:
                os.environ.pop(_EXPERIMENT_NAME, None)  # then the id alone counts, also for child processes
                mlflow.set_experiment(experiment_name)
            yield elsewhere
    finally:
        _fluent()._active_experiment_id = experiment_id
        for name, value in environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def server_runs_jobs() -> bool:
    """Returns whether a server started in this environment would start extra processes for jobs."""
    from mlflow import environment_variables

    variable = getattr(environment_variables, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", None)
    return variable is not None and bool(variable.get())


def run_id_to_resume() -> str | None:
    """Returns the run that `mlflow run` created for this program; `mlflow.start_run` would resume it too."""
    return os.environ.get(_RUN_ID) or None


def experiment_choice(uri: str) -> ExperimentChoice:
    """Returns the experiment that `mlflow.start_run` would use, without a request to the server."""
    from mlflow.tracking.default_experiment import registry

    active = active_experiment_id()
    if active and uri == tracking_uri():  # ids mean nothing on another server
        return ExperimentChoice(None, active)
    if name := os.environ.get(_EXPERIMENT_NAME):
        return ExperimentChoice(name, None)
    if chosen := os.environ.get(_EXPERIMENT_ID):
        return ExperimentChoice(None, chosen)
    return ExperimentChoice(None, str(registry.get_experiment_id()))


def experiment_of_environment() -> ExperimentChoice:
    """Returns the experiment that was set, here or in the environment, without a request to the server."""
    active = active_experiment_id()
    if active is None and (name := os.environ.get(_EXPERIMENT_NAME)):
        return ExperimentChoice(name, None)
    return ExperimentChoice(None, active or os.environ.get(_EXPERIMENT_ID) or None)


def run_tags(given: Mapping[str, str], run_name: str | None) -> dict[str, str]:
    """Returns the tags that `mlflow.start_run` would set: user, source, git, `sys.*`, and the given ones."""
    from mlflow.tracking.context import registry

    named = {"mlflow.runName": run_name} if run_name else {}
    resolved = registry.resolve_tags({**given, **named})
    return {str(key): str(value) for key, value in resolved.items()}


def adopt(uri: str, experiment_id: str) -> None:
    """Makes a tracking URI and an experiment the current ones, for `mlflow.start_run` and child processes.

    `mlflow.set_experiment` would send one more request, with MLflow's own retries.
    """
    import mlflow

    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)
    os.environ.pop(_RUN_ID, None)  # resumed now, and only once; `mlflow.start_run` removes it too
    if hasattr(_fluent(), "_active_experiment_id"):
        _fluent()._active_experiment_id = experiment_id
        if _EXPERIMENT_NAME not in os.environ:  # MLflow refuses a name and an id that differ
            os.environ[_EXPERIMENT_ID] = experiment_id
    else:
        mlflow.set_experiment(experiment_id=experiment_id)


def _fluent() -> Any:
    from mlflow.tracking import fluent

    return fluent
