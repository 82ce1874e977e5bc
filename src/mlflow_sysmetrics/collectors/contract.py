"""What a collector is.

One source, one file. The constructor probes and raises `Unavailable`; `collect` only reads. A collector
knows nothing about runs, threads or MLflow. It keeps its own state between ticks, keyed by the identity of
what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample

KIBIBYTE = 1024
MEGABYTE = 1e6
MICROSECONDS = 1e6  # in a second
PERCENT = 100.0


class Collector(Protocol):
    """Reads one source.

    Attributes:
        family: the group that switches it on and off.
        metrics: the metrics that it may yield.
        cumulative: True if it reads only counters, of 64 bits. What they grow by between two points is the
            same however often they are read in between, so it is read when a point is due, and at each tick
            only while someone watches. Also True of one that has nothing to read at the moment.
        levels: called instead of `collect` at ticks at which no point is due and nobody watches, by a
            collector that has both: may leave out counters, and levels that rarely change.
        gaps: what this host lacks of the source and why, one short clause each, for `status()`.
    """

    family: ClassVar[Family]
    metrics: ClassVar[tuple[Metric, ...]]
    cumulative: bool = False
    gaps: Sequence[str] = ()

    def __init__(self, host: Host) -> None:
        """Probes the source.

        Raises:
            Unavailable: the host does not have it.
        """

    def collect(self, now: float) -> Iterable[Sample]:
        """Yields the current values; unknown ones are left out.

        Args:
            now: seconds of a clock that never goes back.
        """
