"""The other processes and nodes of a job: which job this is, where its run is, one sampler per node."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.cluster.job import Job
    from mlflow_sysmetrics.cluster.sampler import NodeSampler
    from mlflow_sysmetrics.cluster.start import start_node_sampler

_HOME = {"Job": "job", "NodeSampler": "sampler", "start_node_sampler": "start"}

__all__ = ["Job", "NodeSampler", "start_node_sampler"]


def __getattr__(name: str) -> object:
    """Imports a name when it is first read."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
