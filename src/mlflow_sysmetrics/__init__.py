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
        AuthenticationError,
        DeliveryError,
        ExperimentError,
        HPOError,
        NoActiveRunError,
        PreflightError,
        RunRefused,
        RunStartError,
        RunVerificationError,
        ServerUnreachable,
        ServerUnreachableError,
        SettingsError,
        SysMetricsError,
        TrackingURIError,
        Unavailable,
    )
    from mlflow_sysmetrics.providers import (
        SysMetricsDaemonRunContextProvider,
        SysMetricsRunContextProvider,
    )
    from mlflow_sysmetrics.settings import Settings
    from mlflow_sysmetrics.tracking.preflight import PreflightResult, preflight
    from mlflow_sysmetrics.tracking.server import LocalServer, ServerStartError
    from mlflow_sysmetrics.tracking.status_files import read_status
    from mlflow_sysmetrics.tracking.tracked_run import tracked_run
    from mlflow_sysmetrics.training.hpo import HPOResult, OptunaRunner
    from mlflow_sysmetrics.training.recorder import MetricRecorder
    from mlflow_sysmetrics.training.registry import PromotionError, promote, register_model
    from mlflow_sysmetrics.training.system_metrics import SystemMetricsLogger
    from mlflow_sysmetrics.training.trainer.resume import run_to_resume
    from mlflow_sysmetrics.training.trainer.trainer import Trainer

_HOME = {
    "Attachment": "daemon",
    "AuthenticationError": "errors",
    "DeliveryError": "errors",
    "ExperimentError": "errors",
    "HPOError": "errors",
    "HPOResult": "training.hpo",
    "LocalServer": "tracking.server",
    "MetricRecorder": "training.recorder",
    "NoActiveRunError": "errors",
    "OptunaRunner": "training.hpo",
    "PreflightError": "errors",
    "PreflightResult": "tracking.preflight",
    "PromotionError": "training.registry.failures",
    "RunRefused": "errors",
    "RunStartError": "errors",
    "RunVerificationError": "errors",
    "ServerStartError": "tracking.server",
    "ServerUnreachable": "errors",
    "ServerUnreachableError": "errors",
    "Settings": "settings",
    "SettingsError": "errors",
    "Status": "daemon",
    "SysMetricsDaemonRunContextProvider": "providers",
    "SysMetricsError": "errors",
    "SysMetricsRunContextProvider": "providers",
    "SystemMetricsLogger": "training.system_metrics",
    "TrackingURIError": "errors",
    "Trainer": "training.trainer.trainer",
    "Unavailable": "errors",
    "attach": "daemon",
    "flush": "daemon",
    "preflight": "tracking.preflight",
    "promote": "training.registry",
    "read_status": "tracking.status_files",
    "register_model": "training.registry",
    "run_to_resume": "training.trainer.resume",
    "status": "daemon",
    "tracked_run": "tracking.tracked_run",
}

__all__ = [
    "Attachment",
    "AuthenticationError",
    "DeliveryError",
    "ExperimentError",
    "HPOError",
    "HPOResult",
    "LocalServer",
    "MetricRecorder",
    "NoActiveRunError",
    "OptunaRunner",
    "PreflightError",
    "PreflightResult",
    "PromotionError",
    "RunRefused",
    "RunStartError",
    "RunVerificationError",
    "ServerStartError",
    "ServerUnreachable",
    "ServerUnreachableError",
    "Settings",
    "SettingsError",
    "Status",
    "SysMetricsDaemonRunContextProvider",
    "SysMetricsError",
    "SysMetricsRunContextProvider",
    "SystemMetricsLogger",
    "TrackingURIError",
    "Trainer",
    "Unavailable",
    "attach",
    "flush",
    "preflight",
    "promote",
    "read_status",
    "register_model",
    "run_to_resume",
    "status",
    "tracked_run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
