"""What the host does: one file per source, one explicit registry.

`COLLECTORS` lists everything that is read on this operating system, in the order of a tick.
"""

from __future__ import annotations

from mlflow_sysmetrics.collectors.contract import Collector
from mlflow_sysmetrics.collectors.registry import (
    COLLECTORS,
    LINUX,
    PORTABLE,
    AnyCollector,
    CollectorEntry,
    load_classes,
)

__all__ = [
    "COLLECTORS",
    "LINUX",
    "PORTABLE",
    "AnyCollector",
    "Collector",
    "CollectorEntry",
    "load_classes",
]
