"""What a collector is.

One source, one file. The constructor probes and raises `Unavailable`; `collect` only reads. A collector
knows nothing about runs, threads or MLflow. State between ticks is its own, keyed by the identity of what is
measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

MEGABYTE = 1e6
PERCENT = 100.0

# The kernel counts CPU time in steps of 10 ms. Over less than this a share of time is mostly rounding, so a
# rate waits for the next tick and then covers both. Below 0.2, so that ticks of 0.2 s that jitter all count.
SHORTEST_RATE_SECONDS = 0.15


class Collector(Protocol):
    """Reads one source.

    Attributes:
        family: the group that it is switched with.
        metrics: what it may yield.
    """

    family: ClassVar[Family]
    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, host: Host) -> None:
        """Probes the source.

        Raises:
            Unavailable: the host does not have it.
        """

    def collect(self, now: float) -> Iterable[Sample]:
        """Yields what the source says now; what is unknown is left out.

        Args:
            now: seconds of a clock that never goes back.
        """
