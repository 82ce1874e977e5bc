"""The last tick for others than MLflow: the program itself, Prometheus, OpenTelemetry.

Nothing here reads a source. The sampler reads each once, for the runs; what is handed on is that reading.
"""

from __future__ import annotations

from mlflow_sysmetrics.exports.last_tick import snapshot
from mlflow_sysmetrics.exports.readings import Reading, Snapshot

__all__ = ["Reading", "Snapshot", "snapshot"]
