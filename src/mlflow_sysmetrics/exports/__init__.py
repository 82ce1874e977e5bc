"""The last tick for others than MLflow: the program itself, Prometheus, OpenTelemetry.

Nothing here reads a source. The sampler reads each once, for the runs; what is handed on is that reading.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.exports.last_tick import snapshot
    from mlflow_sysmetrics.exports.readings import Reading, Snapshot

_HOME = {"Reading": "readings", "Snapshot": "readings", "snapshot": "last_tick"}

__all__ = ["Reading", "Snapshot", "snapshot"]


def __getattr__(name: str) -> object:
    """Imports a name when it is first read: the daemon needs one module of this package only."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
