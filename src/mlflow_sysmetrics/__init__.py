"""Host tags and system metrics on every MLflow run, from one sampling thread.

Installing the package is enough: MLflow finds it by its entry points. The names here are for programs that
need more; each is imported on first use, and importing the package starts nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.cluster import start_node_sampler
    from mlflow_sysmetrics.daemon import attach, flush, status
    from mlflow_sysmetrics.errors import SysMetricsError
    from mlflow_sysmetrics.exports import snapshot
    from mlflow_sysmetrics.preflight import preflight, tracked_run
    from mlflow_sysmetrics.providers import (
        SysMetricsDaemonRunContextProvider,
        SysMetricsRunContextProvider,
    )
    from mlflow_sysmetrics.server import LocalServer
    from mlflow_sysmetrics.settings import Settings
    from mlflow_sysmetrics.training import (
        MetricRecorder,
        OptunaRunner,
        SystemMetricsLogger,
        Trainer,
        promote,
        register_model,
    )

_HOME = {
    "LocalServer": "server",
    "MetricRecorder": "training",
    "OptunaRunner": "training",
    "Settings": "settings",
    "SysMetricsDaemonRunContextProvider": "providers",
    "SysMetricsError": "errors",
    "SysMetricsRunContextProvider": "providers",
    "SystemMetricsLogger": "training",
    "Trainer": "training",
    "attach": "daemon",
    "flush": "daemon",
    "promote": "training",
    "register_model": "training",
    "snapshot": "exports",
    "start_node_sampler": "cluster",
    "status": "daemon",
    "tracked_run": "preflight",
}

__all__ = [
    "LocalServer",
    "MetricRecorder",
    "OptunaRunner",
    "Settings",
    "SysMetricsDaemonRunContextProvider",
    "SysMetricsError",
    "SysMetricsRunContextProvider",
    "SystemMetricsLogger",
    "Trainer",
    "attach",
    "flush",
    "preflight",
    "promote",
    "register_model",
    "snapshot",
    "start_node_sampler",
    "status",
    "tracked_run",
]


def __getattr__(name: str) -> object:
    if name == "preflight":  # the callable package, which replaces this attribute once it is imported
        return import_module(f"{__name__}.preflight")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
