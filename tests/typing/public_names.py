"""Every public name where README and docs say it is, with its type; mypy checks this file.

The unit tests compare the two lists of names with the modules; the integration tests run the imports.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import mlflow_sysmetrics
from mlflow_sysmetrics import (
    LocalServer,
    MetricRecorder,
    OptunaRunner,
    Settings,
    SysMetricsDaemonRunContextProvider,
    SysMetricsError,
    SysMetricsRunContextProvider,
    SystemMetricsLogger,
    Trainer,
    attach,
    flush,
    preflight,
    promote,
    register_model,
    snapshot,
    start_node_sampler,
    status,
    tracked_run,
)
from mlflow_sysmetrics.daemon import Attachment, Point, PointWriter, Status, Watch, open_writer, watch
from mlflow_sysmetrics.errors import (
    AuthenticationError,
    ExperimentError,
    HPOError,
    NoActiveRunError,
    PreflightError,
    PromotionError,
    RunStartError,
    RunVerificationError,
    ServerStartError,
    ServerUnreachableError,
    SettingsError,
    TrackingURIError,
)
from mlflow_sysmetrics.exports import Reading, Snapshot
from mlflow_sysmetrics.preflight import Attempt, JobStatus, PreflightResult, read_status
from mlflow_sysmetrics.server import ServerConfig, server_command
from mlflow_sysmetrics.training import (
    HPOResult,
    find_version,
    load_model,
    run_to_resume,
    save_model_to_mlflow,
)

TOP_LEVEL = (
    LocalServer,
    MetricRecorder,
    OptunaRunner,
    Settings,
    SysMetricsDaemonRunContextProvider,
    SysMetricsError,
    SysMetricsRunContextProvider,
    SystemMetricsLogger,
    Trainer,
    attach,
    flush,
    preflight,
    promote,
    register_model,
    snapshot,
    start_node_sampler,
    status,
    tracked_run,
)
IN_MODULES = (
    *(Attachment, Point, PointWriter, Status, Watch, open_writer, watch),
    *(Attempt, JobStatus, PreflightResult, read_status),
    *(Reading, Snapshot),
    *(ServerConfig, server_command),
    *(HPOResult, find_version, load_model, run_to_resume, save_model_to_mlflow),
)
ERRORS: tuple[type[SysMetricsError], ...] = (
    AuthenticationError,
    ExperimentError,
    HPOError,
    NoActiveRunError,
    PreflightError,
    PromotionError,
    RunStartError,
    RunVerificationError,
    ServerStartError,
    ServerUnreachableError,
    SettingsError,
    TrackingURIError,
)

if TYPE_CHECKING:
    result: PreflightResult = preflight("ships", max_retries=1)
    attempts: tuple[Attempt, ...] = result.attempts
    the_same: PreflightResult = mlflow_sysmetrics.preflight("ships", max_retries=1)
    run: AbstractContextManager[Any] = tracked_run("ships")
    job: JobStatus = read_status("jobs/1")
    attachment: Attachment = attach("run")
    daemon: Status = status()
    readings: Snapshot = snapshot()
    watts: float = readings["gpu_0_power_usage_watts"].value
    url: str = LocalServer().url
    named: str = ServerStartError("It ended.").log_tail
    failed: tuple[Attempt, ...] = PreflightError("It failed.", step=1).attempts
