"""What is measured: metrics as data, samples as values.

A metric is described once: its type is here, its content in `mlflow_sysmetrics.collectors.catalogue`. A
sample is one value of it at one tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How the values of a metric behave over time, and so how a window combines them."""

    GAUGE = "gauge"  #: a level; a window holds its time-weighted mean
    RATE = "rate"  #: a change per second or a share of time; a window holds its time-weighted mean
    COUNTER = "counter"  #: a growing total; a window holds its last value, counted from the run's attach
    EVENTS = "events"  #: a counter of rare events: sent only once it has grown

    __hash__ = object.__hash__  # that of `Enum` is a function of Python, called for each value of each run


#: Kinds whose values only grow: a point holds their growth since the run's attach.
TOTALS = frozenset({Kind.COUNTER, Kind.EVENTS})


class Family(Enum):
    """A group of metrics that is switched on and off together (`MLFLOW_SYSMETRICS_COLLECTORS`)."""

    CPU = "cpu"
    MEMORY = "memory"
    PRESSURE = "pressure"
    PROCESS = "process"
    DISK = "disk"
    NETWORK = "network"
    FABRIC = "fabric"
    ENERGY = "energy"
    GPU = "gpu"
    GPU_PROFILE = "gpu_profile"


#: Families that are read only if the user names them: few machines have them, or few people need them.
OPT_IN = frozenset({Family.FABRIC, Family.GPU_PROFILE})
DEFAULT_FAMILIES = frozenset(Family) - OPT_IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Describes one metric.

    Attributes:
        name: key without the ``system/`` prefix; ``{i}`` is replaced by the ordinal of a device, ``{name}``
            by the name of a filesystem.
        kind: how its values behave over time.
        unit: unit of its values, for display ("%", "MB", "W"); a megabyte is 1e6 bytes. A count ("threads")
            is the last word of the name, too.
        family: the group that switches it.
        meaning: what a value is, in a sentence.
        source: where the values come from.
        bad: which values are a bad sign, and of what.
        only: the condition for the series; empty if every machine with the source has it.
    """

    name: str
    kind: Kind
    unit: str
    family: Family
    meaning: str
    source: str
    bad: str
    only: str = ""

    def key(self, **which: object) -> str:
        """Returns the key of this metric for one device (``i=0``) or one filesystem (``name="data"``)."""
        return self.name.format(**which)

    def sample(self, value: float, span: float | None = None) -> Sample:
        """Returns a sample of this metric, for a metric of the whole node."""
        return _make(Sample, (self.name, self.kind, value, span))


# A named tuple, not a dataclass: a tick makes dozens, and building a frozen dataclass takes three times as
# long.
class Sample(NamedTuple):
    """One value of one metric at one tick.

    Attributes:
        key: name under ``system/``, with the device's ordinal filled in.
        kind: how its values behave over time.
        value: the value, in the metric's unit.
        span: seconds that the value covers if the collector knows better than the tick (a rate over its own
            interval), else None.
    """

    key: str
    kind: Kind
    value: float
    span: float | None = None


_make = tuple.__new__  # a third of the cost of calling the class
