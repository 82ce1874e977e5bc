"""Samples the machine and delivers the points: one sampler and one sender per server in each process."""

from __future__ import annotations

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.process import (
    Attachment,
    PointWriter,
    attach,
    flush,
    open_writer,
    status,
    watch,
)
from mlflow_sysmetrics.daemon.sampling.watch import Watch
from mlflow_sysmetrics.daemon.state import Status

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
