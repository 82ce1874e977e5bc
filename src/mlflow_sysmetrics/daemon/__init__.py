"""Samples the machine and delivers the points: one sampler and one sender per server in each process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from mlflow_sysmetrics.exports.watch import Watch

_HOME = {
    "Attachment": "process",
    "Point": "delivery.points",
    "PointWriter": "process",
    "Status": "state",
    "Watch": ".exports.watch",
    "attach": "process",
    "flush": "process",
    "open_writer": "process",
    "status": "process",
    "watch": "process",
}

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
    """Imports a name when it is first read: `launch` is needed at once, the rest in another thread."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
