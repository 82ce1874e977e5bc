"""A sampler for tests of exports: shows given samples, and ticks when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

from fakes import FakeClock
from mlflow_sysmetrics.exports.last_tick import Source, Ticked
from mlflow_sysmetrics.exports.readings import METRICS
from mlflow_sysmetrics.samples import Kind, Sample

KINDS = {metric.name: metric.kind for metric in METRICS}


def every_key() -> dict[str, float]:
    """Returns a value for each metric that there is, of two GPUs and two filesystems."""
    keys = [
        metric.key(i=number, name=name)
        for metric in METRICS
        for number, name in ((0, "data"), (1, 'sc"ra\\tch'))
    ]
    return {key: float(place + 1) for place, key in enumerate(dict.fromkeys(keys))}


class FakeSampler:
    """Shows what a test says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.readings = 0
        self.last: tuple[Ticked, Ticked] = ((0.0, ()), (0.0, ()))

    def tick(self, values: dict[str, float], **kinds: Kind) -> None:
        """Takes one reading."""
        samples: Sequence[Sample] = [
            Sample(key, kinds.get(key, KINDS.get(key, Kind.GAUGE)), value) for key, value in values.items()
        ]
        self.last = ((self.clock.seconds, samples), (self.clock.seconds, ()))
        self.readings += 1


class Bench:
    """A source, its sampler and its runs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sampler = FakeSampler(self.clock)
        self.runs: tuple[str, ...] = ("a" * 32,)
        self.source = Source(self.sampler, self.clock, lambda: self.runs)
