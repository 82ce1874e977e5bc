"""Ray, Dask and Spark: a sampler on each node that works for a run, started from the process that has it."""

from __future__ import annotations

from mlflow_sysmetrics.cluster.engines.reconciler import start

__all__ = ["start"]
