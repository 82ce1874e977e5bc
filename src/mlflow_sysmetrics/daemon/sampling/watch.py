"""What the sampler has read last, for who wants to look at it without waiting."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlflow_sysmetrics.runtime.clock import Clock

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.sampler import Sampler

# A training looks every few steps. One that has not looked for so long, or has forgotten to say that it does
# not any more, need not keep the sampler busy; when it looks again the sampler goes on.
_LAPSES_SECONDS = 60.0
# A reading is as old as the interval between two. Where it is older than some of them, and the sampler was
# not held up for a moment only, what it says is not true any more.
_STALE_INTERVALS = 3
_STALE_SECONDS = 5.0

_NOTHING: Mapping[str, float] = MappingProxyType({})


class Watch:
    """Keeps the sampler ticking while somebody looks, and shows the last reading.

    Args:
        sampler: reads.
        clock: tells the time.
        interval: seconds between two readings.
    """

    def __init__(self, sampler: Sampler, clock: Clock, interval: float) -> None:
        self.interval = interval
        self._sampler = sampler
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._closed = False
        sampler.watch(self)

    def read(self) -> Mapping[str, float]:
        """Returns the last reading by key, without ``system/``; empty while there is none. Never waits.

        Rates need two readings, the second of which comes a fifth of a second after the first.
        """
        if self._closed:
            return _NOTHING
        now = self._clock.monotonic()
        lapsed, self._looked_at = self.lapsed(now), now
        if lapsed:
            self._sampler.watch(self)
        read_at, samples = self._sampler.latest
        if now - read_at > max(_STALE_INTERVALS * self.interval, _STALE_SECONDS):
            return _NOTHING
        return {sample.key: sample.value for sample in samples}

    def wait(self, readings: int, timeout: float) -> bool:
        """Waits until the sampler has read so often since it was last idle; returns whether it has."""
        ends = self._clock.monotonic() + timeout
        pause = threading.Event()
        while self._sampler.readings < readings:
            if self._clock.monotonic() >= ends:
                return False
            pause.wait(0.005)  # the sampler tells nobody: it has enough to do
        return True

    def close(self) -> None:
        """Looks no more."""
        self._closed = True
        self._looked_at = -math.inf

    def lapsed(self, now: float) -> bool:
        """Tells whether nobody has looked for long. For the sampler."""
        return now - self._looked_at > _LAPSES_SECONDS
