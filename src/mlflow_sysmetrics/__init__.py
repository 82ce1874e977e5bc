"""Host tags and system metrics on every MLflow run, from one sampling thread.

Installing the package is enough: MLflow finds it by its entry points. The names here are for programs that
want more; they are loaded when they are first used, and importing the package starts nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon import Attachment, Status, attach, flush, status
    from mlflow_sysmetrics.errors import (
        DeliveryError,
        RunRefused,
        ServerUnreachable,
        SettingsError,
        SysMetricsError,
        Unavailable,
    )
    from mlflow_sysmetrics.providers import (
        SysMetricsDaemonRunContextProvider,
        SysMetricsRunContextProvider,
    )
    from mlflow_sysmetrics.settings import Settings

_HOME = {
    "Attachment": "daemon",
    "DeliveryError": "errors",
    "RunRefused": "errors",
    "ServerUnreachable": "errors",
    "Settings": "settings",
    "SettingsError": "errors",
    "Status": "daemon",
    "SysMetricsDaemonRunContextProvider": "providers",
    "SysMetricsError": "errors",
    "SysMetricsRunContextProvider": "providers",
    "Unavailable": "errors",
    "attach": "daemon",
    "flush": "daemon",
    "status": "daemon",
}

__all__ = [
    "Attachment",
    "DeliveryError",
    "RunRefused",
    "ServerUnreachable",
    "Settings",
    "SettingsError",
    "Status",
    "SysMetricsDaemonRunContextProvider",
    "SysMetricsError",
    "SysMetricsRunContextProvider",
    "Unavailable",
    "attach",
    "flush",
    "status",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
