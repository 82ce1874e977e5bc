"""When to sample, what a window is, how points reach the server."""

from __future__ import annotations

from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.daemon.process import (
    Attachment,
    PointWriter,
    attach,
    flush,
    open_writer,
    status,
    watch,
)
from mlflow_sysmetrics.daemon.state import Status
from mlflow_sysmetrics.daemon.watch import Watch

__all__ = [
    "Attachment",
    "Point",
    "PointWriter",
    "Status",
    "Watch",
    "attach",
    "flush",
    "open_writer",
    "status",
    "watch",
]
