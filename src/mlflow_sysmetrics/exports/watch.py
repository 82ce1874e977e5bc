"""Shows the last reading of the sampler, and keeps it reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn, Protocol

from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.samples import Sample

# A watch that was not read for this long, or never closed, lapses: the sampler may stop. It resumes at the
# next read.
_LAPSES_SECONDS = 60.0
# A reading is normally as old as one interval. One that is several intervals old, and was not just delayed
# for a moment, is out of date.
_STALE_INTERVALS = 3
_STALE_SECONDS = 5.0
_NOTHING: Mapping[str, float] = MappingProxyType({})


class WatchedSampler(Protocol):
    """What a watch needs of the sampler."""

    @property
    def latest(self) -> tuple[float, Sequence[Sample]]:
        """Monotonic time and samples of the last tick."""

    @property
    def readings(self) -> int:
        """Number of readings since the sampler was last idle."""

    def watch(self, watch: Watch) -> None:
        """Keeps ticking until a watch lapses."""


class Watch:
    """Keeps the sampler ticking while it is read, and shows the last reading.

    Args:
        sampler: the sampler.
        clock: the time source.
        interval: seconds between two readings.
    """

    def __init__(self, sampler: WatchedSampler, clock: Clock, interval: float) -> None:
        self.interval = interval
        self._sampler = sampler
        self._clock = clock
        self._read_at = clock.monotonic()
        self._closed = False
        sampler.watch(self)

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled or copied."""
        raise TypeError("a Watch cannot be pickled or copied, as it reads this process's sampling thread")

    def read(self) -> Mapping[str, float]:
        """Returns the last reading by key, without ``system/``; empty while there is none. Never blocks.

        Rates need two readings; the second follows the first after a fifth of a second.
        """
        if self._closed:
            return _NOTHING
        now = self._clock.monotonic()
        lapsed, self._read_at = self.lapsed(now), now
        if lapsed:
            self._sampler.watch(self)
        taken_at, samples = self._sampler.latest
        if now - taken_at > max(_STALE_INTERVALS * self.interval, _STALE_SECONDS):
            return _NOTHING
        return {sample.key: sample.value for sample in samples}

    def wait(self, readings: int, timeout: float) -> bool:
        """Waits for a number of readings since the sampler was last idle; returns whether they happened."""
        ends = self._clock.monotonic() + timeout
        pause = Event()
        while self._sampler.readings < readings:
            if self._clock.monotonic() >= ends:
                return False
            pause.wait(0.005)  # poll: the sampler does not signal
        return True

    def close(self) -> None:
        """Ends the watch."""
        self._closed = True
        self._read_at = -math.inf

    def lapsed(self, now: float) -> bool:
        """Returns whether the watch was not read for a minute. Called by the sampler."""
        return now - self._read_at > _LAPSES_SECONDS
