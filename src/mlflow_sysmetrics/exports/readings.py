"""What a snapshot consists of: readings by key, each with its unit and its age."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory, disk_and_network, gpu
from mlflow_sysmetrics.samples import Kind, Metric, Sample

#: Every metric that there is.
METRICS = tuple(
    metric
    for module in (cpu_and_memory, disk_and_network, gpu)
    for metric in vars(module).values()
    if isinstance(metric, Metric)
)
_NAMED = {metric.name: metric for metric in METRICS if "{" not in metric.name}
_PATTERNS = tuple(
    (re.compile(re.escape(metric.name).replace(r"\{i\}", r"(\d+)").replace(r"\{name\}", "((?s:.+))")), metric)
    for metric in METRICS
    if "{" in metric.name
)
_MOST_KEYS = 2000  # a node with 64 GPUs and all families has 1,700 series


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of the last tick.

    Attributes:
        value: the value. A total counts from some moment before the sampling began, so that only the
            difference of two snapshots says something.
        unit: its unit, such as "%", "MB", "MB/s" or "W"; a megabyte is 1e6 bytes.
        age: seconds since it was read. Levels are read at each tick; what counts (CPU time, bytes, energy) is
            read when a point is due, every ten seconds by default, so it is up to that much older.
        kind: "gauge" (a level), "rate" (a change per second or a share of time), "counter" (a total) or
            "events" (a total that rarely grows).
    """

    value: float
    unit: str
    age: float
    kind: str


class Snapshot(Mapping[str, Reading]):
    """The readings of the last tick by key, without ``system/``; cannot be changed.

    Args:
        readings: these.
    """

    __slots__ = ("_readings",)

    _readings: Mapping[str, Reading]

    def __init__(self, readings: Mapping[str, Reading]) -> None:
        object.__setattr__(self, "_readings", dict(readings))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Snapshot cannot be changed")

    def __getitem__(self, key: str) -> Reading:
        return self._readings[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readings)

    def __len__(self) -> int:
        return len(self._readings)

    def __reduce__(self) -> tuple[object, ...]:
        return Snapshot, (dict(self._readings),)

    def __repr__(self) -> str:
        width = max(map(len, self._readings), default=0)
        rows = (
            f"{key:<{width}} {one.value:>12,.3f} {one.unit:<9} {one.age:.1f} s ago"
            for key, one in self.items()
        )
        return "\n  ".join((f"<snapshot of {len(self)} readings>", *rows))


@lru_cache(maxsize=_MOST_KEYS)
def metric_of(key: str) -> tuple[Metric | None, str]:
    """Returns the metric of a key, and which device or filesystem it is of ("" for the node).

    Args:
        key: as in a snapshot. That of a collector from elsewhere has no metric here.
    """
    named = _NAMED.get(key)
    if named is not None:
        return named, ""
    for pattern, metric in _PATTERNS:
        if match := pattern.fullmatch(key):
            return metric, match[1]
    return None, ""


def readings_of(now: float, *ticks: tuple[float, Sequence[Sample]]) -> dict[str, Reading]:
    """Returns the readings of ticks; of a key that several have, that of the first.

    Args:
        now: monotonic time.
        *ticks: monotonic time and samples of each.
    """
    found: dict[str, Reading] = {}
    for at, samples in ticks:
        age = max(now - at, 0.0)
        for key, kind, value, _ in samples:
            if key not in found:
                metric, _ = metric_of(key)
                unit = metric.unit if metric is not None else ""
                found[key] = Reading(value=value, unit=unit, age=age, kind=_KINDS[kind])
    return found


_KINDS = {kind: kind.value for kind in Kind}
