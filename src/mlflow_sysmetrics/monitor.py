"""Stands in for MLflow's `SystemMetricsMonitor`.

`mlflow.start_run` builds a `SystemMetricsMonitor` for every run with system metrics and calls its `start()`;
`mlflow.end_run` calls its `finish()`. The stand-in has the same constructor and methods, which attach the run
to the daemon and detach it. So runs are attached exactly when MLflow decides to, its switches and setters
keep their meaning, and nothing is logged twice.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from threading import get_ident
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import mlflow_sysmetrics.runtime.clock  # noqa: F401 - binds its functions before a test can freeze time
from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.settings import CLUSTER, METRICS, METRICS_TAG, Settings, variables

if TYPE_CHECKING:
    from mlflow_sysmetrics.cluster.membership import Membership
    from mlflow_sysmetrics.daemon import Attachment

MONITOR_MODULE = "mlflow.system_metrics.system_metrics_monitor"
_CLASS = "SystemMetricsMonitor"
_warned: set[str] = set()
_MOST_WARNINGS = 100  # a message may name what a program chose, such as the id of a run
# The numbers of processes in `facts.surroundings.LAUNCHERS`; a pod of an Indexed Job knows only its index.
_JOB_SIZES = frozenset(
    {"WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}
    | {"JSM_NAMESPACE_SIZE", "SUBMITIT_LOCAL_NTASKS"}
)
_INDEX_OF_POD = "JOB_COMPLETION_INDEX"
_held_back: dict[int, tuple[FrameType, BaseException]] = {}  # by thread


class SystemMetricsMonitor:
    """Attaches a run to the daemon, with the interface of MLflow's class.

    Args:
        run_id: id of the run.
        sampling_interval: seconds between two ticks, unless the environment sets it.
        samples_before_logging: ticks per point, unless the environment sets it.
        resume_logging: whether the run existed before; it keeps the tags of the machine it began on.
        node_id: name of this node in the keys, unless the environment sets it.
        tracking_uri: the run's tracking server; by default MLflow's current one.

    Raises:
        SettingsError: an argument is out of its range.
    """

    def __init__(  # noqa: PLR0917 - MLflow's own signature
        self,
        run_id: str,
        sampling_interval: float | None = None,
        samples_before_logging: int | None = None,
        resume_logging: bool = False,  # noqa: FBT001, FBT002 - MLflow's own signature
        node_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        settings = Settings.from_environ(
            sampling_interval=sampling_interval,
            samples_before_logging=samples_before_logging,
            node_id=node_id,
        )
        self.sampling_interval = settings.sampling_interval
        self.samples_before_logging = settings.samples_before_logging
        self.node_id = settings.node_id
        self._run_id = run_id
        self._settings = settings
        self._tracking_uri = tracking_uri
        self._attachment: Attachment | Membership | None = None
        self._resumed = resume_logging
        self._is_over = False
        from mlflow_sysmetrics.mlflow_api import fluent_state  # late: `import mlflow` loads this module

        self._replaced = fluent_state.registered_monitors().get(run_id)

    def start(self) -> None:
        """Attaches the run; logs a problem instead of raising it."""
        from mlflow_sysmetrics.mlflow_api import fluent_state

        # MLflow passes only the id; the run with its start time and tags is one frame up. Reading it there,
        # after comparing the id, saves a request per run.
        caller = sys._getframe(1)  # noqa: SLF001 - documented for CPython and PyPy
        run = fluent_state.run_being_started(caller, self._run_id)
        try:
            _raise_held_back(caller)
            if not self._defer(run):
                self._attach(run)
        except Exception as error:
            # The user's training calls this, and must not fail because of a metric.
            interruption = _foreign(error)
            if interruption is not None:
                self._release()  # the run is not active then, and nobody will end it
                raise (interruption if run is None else _Passing(interruption)) from None
            self._fail(error, run)
        except BaseException:  # Ctrl-C
            self._release()
            raise

    def finish(self) -> None:
        """Detaches the run and waits for its last points, at most the flush timeout."""
        try:
            self._detach()
        except Exception as error:  # the user's training calls this, too
            self._release()
            interruption = _foreign(error)
            if interruption is not None:
                raise interruption from None
            _warn_once(f"System metrics may be incomplete: {type(error).__name__}: {error}")
        except BaseException:  # Ctrl-C
            self._release()
            raise

    def _release(self) -> None:
        """Ends the run's series, whatever has interrupted `start` or `finish`."""
        self._is_over = True
        if self._attachment is not None:
            self._attachment.release()

    def _defer(self, run: Any) -> bool:
        """Has the run attached when the daemon is loaded; returns False if it is loaded already."""
        from mlflow_sysmetrics.daemon import launch

        if launch.is_loaded() and not launch.is_pending():
            return False
        from mlflow_sysmetrics.mlflow_api.clients import import_mlflow
        from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri

        import_mlflow()  # in this thread
        # The program may change its tracking URI and its working directory meanwhile.
        uri = self._tracking_uri or current_tracking_uri()
        if not uri.startswith("http"):
            from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored

            uri = anchored(uri)
        self._tracking_uri = uri
        return launch.defer(partial(self._attach_late, run))

    def _attach_late(self, run: Any) -> None:
        """Attaches the run in the thread that has loaded the daemon, unless the run is over by now."""
        try:
            if not self._is_over:
                self._attach(run)
            if self._is_over:
                self._release()
        except Exception as error:  # in a thread of ours nobody else sees it: the run is told
            self._fail(error, run)

    def _attach(self, run: Any) -> None:
        if may_have_other_processes():
            from mlflow_sysmetrics.cluster.membership import Membership

            membership = Membership.of(self._run_id, self._tracking_uri, self._settings, run)
            if membership is not None:
                self._attachment = membership
                membership.begin(resumed=self._resumed)
                return
        from mlflow_sysmetrics.daemon.process import prepare, tell_engines

        # Known here before it begins: a signal handler that raises must not leave a run attached for ever.
        self._attachment = attachment = prepare(self._run_id, self._tracking_uri, self._settings)
        started_at, tags = (None, None) if run is None else (run.info.start_time, run.data.tags)
        attachment.begin(self._settings, started_at, (tags or {}).get(METRICS_TAG))
        if run is not None and self._resumed and attachment.announcer is not None:
            attachment.announcer.continue_from(run.data.metrics)
        if self._settings.tags:
            from mlflow_sysmetrics.daemon.delivery.host_tags import put_host_tags

            put_host_tags(attachment, tags, resumed=self._resumed)
        tell_engines(attachment, self._settings)

    def _detach(self) -> None:
        from mlflow_sysmetrics.daemon import launch

        timeout: float | None = None
        if launch.is_pending():  # the first run of the process is over before the daemon is loaded
            ends = time.monotonic() + self._settings.flush_timeout
            if not launch.wait(self._settings.flush_timeout) and launch.defer(self._detach_late):
                self._restore_replaced()
                return
            timeout = max(ends - time.monotonic(), 0.0)
        if self._attachment is not None:
            self._attachment.detach(timeout)
            self._restore_replaced()

    def _detach_late(self) -> None:
        """Detaches the run in the thread that has loaded the daemon; nobody waits for its points."""
        self._is_over = True
        if self._attachment is not None:
            self._attachment.detach(timeout=0)

    def _fail(self, error: Exception, run: Any) -> None:
        known = "no thread can be started" if isinstance(error, ThreadUnavailable) else str(error)
        _warn_once(f"System metrics are off: {type(error).__name__}: {error}")
        self._tag_failure(f"off: {known or type(error).__name__}", run)

    def _tag_failure(self, reason: str, run: Any) -> None:
        """Tells the run why it has no metrics. There is no thread to do so: one request, in bounded time."""
        from mlflow_sysmetrics.facts.values import shortened
        from mlflow_sysmetrics.mlflow_api.runs import set_tags_now
        from mlflow_sysmetrics.mlflow_api.secrets import cleaned

        present = {} if run is None else run.data.tags
        if self._settings.tags and not present.get(METRICS_TAG, "").startswith("off"):
            set_tags_now(self._tracking_uri, self._run_id, {METRICS_TAG: shortened(cleaned(reason))})

    def _restore_replaced(self) -> None:
        """Registers the monitor that this one replaced again.

        MLflow keeps one monitor per run id. If a run is started again inside itself, as kedro does, the end
        of the inner one would otherwise leave the outer monitor unregistered, and so never finished.
        """
        from mlflow_sysmetrics.mlflow_api import fluent_state

        outer = self._replaced
        if isinstance(outer, SystemMetricsMonitor) and outer is not self:
            fluent_state.registered_monitors()[self._run_id] = outer


class _Passing(Exception):
    """Carries an exception of the program through `mlflow.start_run`.

    MLflow catches every Exception of `start` and logs its text. So the text is the exception.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def __str__(self) -> str:
        raise self._error from None


def hold_back(error: Exception, start_run: FrameType) -> bool:
    """Keeps an exception of the program until the `start` of the same `mlflow.start_run` raises it.

    MLflow catches every Exception of a provider.

    Returns:
        Whether it is one of the program.
    """
    interruption = _foreign(error)
    if interruption is not None:
        _held_back[get_ident()] = start_run, interruption
    return interruption is not None


def _raise_held_back(caller: FrameType) -> None:
    start_run, held_back = _held_back.pop(get_ident(), (None, None))
    if held_back is not None and start_run is caller:
        raise held_back


def _foreign(error: Exception) -> BaseException | None:
    from mlflow_sysmetrics.interruptions import foreign  # late: rarely needed

    return foreign(error)


def _warn_once(message: str) -> None:
    from mlflow_sysmetrics.mlflow_api.secrets import cleaned

    message = cleaned(message)
    if message not in _warned and len(_warned) < _MOST_WARNINGS:
        _warned.add(message)
        from mlflow_sysmetrics.log import Log  # late: `import mlflow` loads this module

        Log().warning("mlflow-sysmetrics: %s", message)


def may_have_other_processes() -> bool:
    """Returns whether this process may be one of several of a job, and their part is not switched off."""
    environ = os.environ
    several = any(environ.get(size, "1") not in {"", "1"} for size in _JOB_SIZES)
    return (several or _INDEX_OF_POD in environ) and environ.get(CLUSTER, "").strip().lower() not in {
        "off",
        "false",
        "0",
        "no",
    }


def install() -> None:
    """Puts the stand-in in place of MLflow's monitor, and turns system metrics on by default.

    Raises:
        Unavailable: this MLflow does not have the expected layout; says why.
    """
    environment = sys.modules.get("mlflow.environment_variables")
    switch = getattr(environment, METRICS, None)
    try:
        exists = importlib.util.find_spec(MONITOR_MODULE) is not None
    except ModuleNotFoundError:
        exists = False
    if not exists or switch is None or not hasattr(switch, "default"):
        raise Unavailable(f"MLflow {mlflow_version()} has no system metrics; MLflow 2.8 and newer have")
    # MLflow's own `get` raises on an unknown value, in the middle of `start_run`.
    switch.get = lambda: variables().switch(METRICS)
    switch.default = True
    module = sys.modules.get(MONITOR_MODULE)
    if module is not None:
        _put_stand_in(module)
    elif not any(isinstance(finder, _MonitorFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MonitorFinder())


def mlflow_version() -> str:
    """Returns the version of MLflow, which may not be fully imported yet."""
    from mlflow_sysmetrics.mlflow_api.fluent_state import version  # rarely needed

    return version()


def _put_stand_in(module: ModuleType) -> None:
    """Replaces the class; warns once if the module of a future MLflow does not have it."""
    if hasattr(module, _CLASS):
        setattr(module, _CLASS, SystemMetricsMonitor)
    else:
        from mlflow_sysmetrics.log import Log

        Log().warning(
            "mlflow-sysmetrics: MLflow's own monitor stays in use: %s of MLflow %s has no %s to replace.",
            module.__name__,
            mlflow_version(),
            _CLASS,
        )


class _MonitorFinder(importlib.abc.MetaPathFinder):
    """Puts the stand-in into MLflow's monitor module when that is first imported.

    Importing it here would add ten milliseconds to every `import mlflow`, most of them for pynvml.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns MLflow's own spec, with a loader that puts the stand-in into the loaded module."""
        others = (
            [finder for finder in sys.meta_path if finder is not self] if fullname == MONITOR_MODULE else []
        )
        spec = next(filter(None, (one.find_spec(fullname, path, target) for one in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _StandInLoader(spec.loader)
        return spec


class _StandInLoader(importlib.abc.Loader):
    """Puts the stand-in into MLflow's module without running that.

    Running it loads pynvml and psutil's wrappers, ten milliseconds of the first `start_run` and a megabyte,
    for nothing but the class. Whoever asks for another name of the module still gets it: then it is run.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Creates the module with MLflow's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Puts the stand-in into the module, and runs MLflow's code only where that has no such class."""
        names = self._names(module)
        if _CLASS in names:
            setattr(module, _CLASS, SystemMetricsMonitor)
            module.__getattr__ = partial(self._run_for, module, names)  # type: ignore[method-assign]
            module.__dir__ = partial(sorted, {*vars(module), *names})  # type: ignore[method-assign]
        else:
            self._run(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _MonitorFinder)]

    def _names(self, module: ModuleType) -> tuple[str, ...]:
        """Returns the names that the code of the module binds or uses; none if it cannot be read."""
        loader = self._loader
        code = loader.get_code(module.__name__) if isinstance(loader, importlib.abc.InspectLoader) else None
        return () if code is None else code.co_names

    def _run_for(self, module: ModuleType, names: Sequence[str], name: str) -> object:
        if name in names and name not in vars(module):
            self._run(module)
            vars(module).pop("__getattr__", None)
            vars(module).pop("__dir__", None)
        if name in vars(module):
            return vars(module)[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    def _run(self, module: ModuleType) -> None:
        # Not in a thread beside greenlets: under eventlet, another greenlet would see half of the module.
        self._loader.exec_module(module)
        _put_stand_in(module)
