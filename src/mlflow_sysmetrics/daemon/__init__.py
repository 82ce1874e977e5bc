"""When to sample, what a window is, how points reach the server."""

from __future__ import annotations

from mlflow_sysmetrics.daemon.daemon import Status
from mlflow_sysmetrics.daemon.process import Attachment, attach, flush, status

__all__ = ["Attachment", "Status", "attach", "flush", "status"]
