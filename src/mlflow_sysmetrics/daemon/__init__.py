"""Samples the machine and delivers the points: one sampler and one sender per server in each process."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from mlflow_sysmetrics.daemon.state import Status

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.watch import Watch

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


def __getattr__(name: str) -> object:
    if name == "Watch":  # rarely needed
        from mlflow_sysmetrics.daemon.sampling.watch import Watch

        return Watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
