"""The two `mlflow.run_context_provider` entry points, and nothing else.

MLflow builds both while it is imported and catches only ImportError and AttributeError there, so the
constructors neither raise nor start anything.

They have the methods of MLflow's `RunContextProvider` but do not inherit from it: importing it would import
all of MLflow, which would look for these classes before this module has defined them.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from mlflow_sysmetrics.settings import METRICS, METRICS_TAG, Settings

FACTS_WAIT_SECONDS = 1.0  #: longest wait of `start_run` for facts; the daemon adds later ones to the run

_ATTACH = "MLFLOW_SYSMETRICS_ATTACH"
_no_metrics: str | None = None  # value of the tag if the hook could not be installed


class SysMetricsRunContextProvider:
    """Puts ``sys.*`` host tags on every run."""

    def in_context(self) -> bool:
        """Returns whether the tags are on."""
        settings = Settings.from_environ()
        return settings.providers and settings.tags

    def tags(self) -> dict[str, str]:
        """Returns what is known about this host.

        MLflow calls it before the run exists, and for datasets, models and traces, too. So it is cheap once
        the facts are found, has no side effects, and does not mean that a run starts.
        """
        try:
            return _tags(sys._getframe(1), FACTS_WAIT_SECONDS)  # noqa: SLF001 - as in the monitor
        except Exception as error:
            # The program's own timeout. MLflow would catch it here; it passes when the metrics are started.
            from mlflow_sysmetrics.mlflow_api import fluent_state
            from mlflow_sysmetrics.monitor import hold_back

            caller = sys._getframe(1)  # noqa: SLF001
            start_run = fluent_state.start_run_that_asks(caller)
            if start_run is None or _why_no_metrics(start_run) is not None or not hold_back(error, start_run):
                raise
            return _tags(caller, wait_seconds=0)


class SysMetricsDaemonRunContextProvider:
    """Makes MLflow attach its runs to the sampling thread. It provides no tags itself."""

    def __init__(self) -> None:
        global _no_metrics  # noqa: PLW0603 - MLflow builds one of each provider per process
        if not Settings.from_environ().providers:
            return
        from mlflow_sysmetrics.monitor import install, mlflow_version

        try:
            install()
        except Exception as reason:
            from mlflow_sysmetrics.interruptions import reraise_interruption

            reraise_interruption(reason)
            # This runs during `import mlflow`, which must not fail because of us. Tags keep working.
            _no_metrics = f"unavailable: MLflow {mlflow_version()}"
            from mlflow_sysmetrics.log import Log

            Log().warning("mlflow-sysmetrics: System metrics are not logged: %s. Tags still are.", reason)
        else:
            _follow()

    def in_context(self) -> bool:
        """Returns False: this provider has no tags."""
        return False

    def tags(self) -> dict[str, str]:
        """Returns no tags."""
        return {}


def _follow() -> None:
    """Takes part in the run of a job in a process that does not start it. Costs a few look-ups elsewhere."""
    from mlflow_sysmetrics.monitor import may_have_other_processes

    in_job = may_have_other_processes()
    if in_job or os.environ.get(_ATTACH, "").strip().lower() == "env":
        from mlflow_sysmetrics.cluster.following import start

        start(in_job=in_job)


def _tags(caller: FrameType, wait_seconds: float) -> dict[str, str]:
    from mlflow_sysmetrics.runtime.threads import import_beside

    import_beside("mlflow_sysmetrics.facts.discovery")
    from mlflow_sysmetrics.facts import host_facts
    from mlflow_sysmetrics.mlflow_api import fluent_state

    why_not = _why_no_metrics(fluent_state.start_run_that_asks(caller))
    facts = host_facts()
    tags = facts.tags(wait_seconds=wait_seconds)
    if why_not is None and facts.has_no_thread:
        why_not = "off: no thread can be started"
    if why_not is not None:  # "on" comes with the first points
        tags[METRICS_TAG] = why_not
    return tags


def _why_no_metrics(start_run: FrameType | None) -> str | None:
    """Returns why a run that starts now will have no system metrics; None if it may have some.

    Args:
        start_run: frame of the `mlflow.start_run` that starts it, if one does.
    """
    if _no_metrics is not None:
        return _no_metrics
    argument = None if start_run is None else start_run.f_locals.get("log_system_metrics")
    if argument is not None:
        return None if argument else "off: log_system_metrics=False"
    return None if Settings.from_environ().metrics else f"off: {METRICS}=false"
