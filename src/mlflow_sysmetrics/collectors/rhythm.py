"""When to read: the time that a rate stands for, and sources that are read less often than at every tick."""

from __future__ import annotations

import math

# The kernel counts CPU time in steps of 10 ms. Over less than this a share of time is mostly rounding, so a
# rate waits for the next tick and then covers both. Below 0.2, so that ticks of 0.2 s that jitter all count.
SHORTEST_RATE_SECONDS = 0.15

# How much a counter of the kernel may seem to have run ahead of our clock: the two are read at moments that a
# busy machine may part by some of a short span.
CLOCKS_DIFFER = 1.5

# Limits change in the life of a job (a pod that is resized, a user's slice), but seldom, and looking them up
# reads a dozen files.
LIMITS_SECONDS = 120.0


class Lap:
    """Measures the time between two readings of a counter.

    The constructor of a collector takes its first reading without a clock; that reading ages from the first
    question on.
    """

    def __init__(self) -> None:
        self._began = math.inf

    def seconds(self, now: float) -> float | None:
        """Returns the seconds since the last lap and begins a new one; None while too short for a rate.

        Args:
            now: seconds of a clock that never goes back. Should it do so, a new lap begins.
        """
        passed = now - self._began
        if passed < 0:  # the first question too
            self._began = now
            return None
        if passed < SHORTEST_RATE_SECONDS:
            return None
        self._began = now
        return passed


class Pause:
    """Lets a source rest between two readings.

    Args:
        seconds: shortest time from one reading to the next.
        read: the source has just been read, in the constructor of a collector, which knows no time: the first
            question begins the first pause.
    """

    def __init__(self, seconds: float, *, read: bool = True) -> None:
        self._seconds = seconds
        self._over_at: float | None = None if read else -math.inf

    def renew_if_over(self, now: float) -> bool:
        """Tells whether it is time to read, and if so begins the next pause."""
        if self._over_at is None:
            self._over_at = now + self._seconds
        if now < self._over_at and self._over_at - now <= self._seconds:
            return False
        self._over_at = now + self._seconds
        return True
