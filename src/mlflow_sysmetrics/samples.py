"""What is measured: metrics as data, samples as values.

A metric is described once, here in type and in `mlflow_sysmetrics.collectors.catalogue` in content. A
sample is one value of it at one tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How the values of a metric behave over time, hence how a window sums them up."""

    GAUGE = "gauge"  #: a level; a window has its time-weighted mean
    RATE = "rate"  #: a change per second or a share of time; a window has its time-weighted mean
    COUNTER = "counter"  #: a growing total; a window has its last value, counted from the run's attach


class Family(Enum):
    """A group of metrics that is switched on and off together (`MLFLOW_SYSMETRICS_COLLECTORS`)."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    GPU = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Describes one metric.

    Attributes:
        name: key without the ``system/`` prefix; ``{i}`` stands for the ordinal of a device.
        kind: how its values behave over time.
        unit: unit of its values, for people ("%", "MB", "W"); a megabyte is 1e6 bytes.
        family: the group it is switched with.
        meaning: one line that says what a value is.
    """

    name: str
    kind: Kind
    unit: str
    family: Family
    meaning: str

    def key(self, ordinal: int) -> str:
        """Returns the key of this metric for the device with that ordinal."""
        return self.name.format(i=ordinal)

    def sample(self, value: float, span: float | None = None) -> Sample:
        """Returns a sample of this metric, for a metric without devices."""
        return Sample(self.name, self.kind, value, span)


# A named tuple, not a dataclass: a tick makes dozens, and a frozen dataclass takes thrice as long to build.
class Sample(NamedTuple):
    """One value of one metric at one tick.

    Attributes:
        key: name under ``system/``, with the device's ordinal filled in.
        kind: how its values behave over time.
        value: the value, in the metric's unit.
        span: seconds that the value stands for where the collector knows better than the tick (a rate
            over its own interval), else None.
    """

    key: str
    kind: Kind
    value: float
    span: float | None = None
