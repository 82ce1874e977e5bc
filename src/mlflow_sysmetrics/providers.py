"""The two `mlflow.run_context_provider` entry points, and nothing else.

MLflow builds both while it is imported and catches only ImportError and AttributeError there, so the
constructors neither raise nor start anything.

They have the methods of MLflow's `RunContextProvider` and do not inherit from it: its import would run all of
MLflow, which would look for these classes before this module has made them.
"""

from __future__ import annotations

import logging

from mlflow_sysmetrics.settings import METRICS, Settings

FACTS_WAIT_SECONDS = (
    1.0  #: longest wait of `start_run` for facts; later ones are put on the run by the daemon
)

_logger = logging.getLogger("mlflow_sysmetrics")
_no_metrics: str | None = None  # what the tag says where the hook could not be installed


class SysMetricsRunContextProvider:
    """Puts ``sys.*`` host tags on every run."""

    def in_context(self) -> bool:
        """Tells whether tags are wanted."""
        settings = Settings.from_environ()
        return settings.providers and settings.tags

    def tags(self) -> dict[str, str]:
        """Returns what is known of this host.

        MLflow asks before the run exists, and for datasets, models and traces too, so this is cheap once the
        facts are found, has no side effect, and never means that a run starts.
        """
        from mlflow_sysmetrics.facts import host_facts

        tags = host_facts().tags(wait_seconds=FACTS_WAIT_SECONDS)
        tags["sys.metrics"] = _metrics_state()
        return tags


class SysMetricsDaemonRunContextProvider:
    """Has MLflow attach its runs to the one sampling thread. It provides no tags itself."""

    def __init__(self) -> None:
        global _no_metrics  # noqa: PLW0603 - MLflow builds one of each provider per process
        if not Settings.from_environ().providers:
            return
        from mlflow_sysmetrics.monitor import install, mlflow_version

        try:
            install()
        except Exception as reason:  # noqa: BLE001
            # `import mlflow` is running, and nothing here is worth breaking it. Tags go on working.
            _no_metrics = f"unavailable: MLflow {mlflow_version()}"
            _logger.warning("mlflow-sysmetrics: System metrics are not logged: %s. Tags are.", reason)

    def in_context(self) -> bool:
        """Tells that there are no tags from here."""
        return False

    def tags(self) -> dict[str, str]:
        """Returns no tags."""
        return {}


def _metrics_state() -> str:
    if _no_metrics is not None:
        return _no_metrics
    settings = Settings.from_environ()
    return "on" if settings.metrics else f"off: {METRICS}=false"
