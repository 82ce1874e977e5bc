"""When to read: the span of a rate, and sources that are read less often than at every tick."""

from __future__ import annotations

import math

# The kernel counts CPU time in steps of 10 ms. Over a shorter span a share of time is mostly rounding error,
# so a rate waits for the next tick and then covers both. Below 0.2, so that jittering ticks of 0.2 s all
# count.
SHORTEST_RATE_SECONDS = 0.15

# How far a kernel counter may run ahead of our clock: on a busy machine the two readings may be apart by a
# good part of a short span.
CLOCKS_DIFFER = 1.5

# What changes slowly and takes as long as several other sources: space of a filesystem, open files.
SLOW_SECONDS = 5.0
# What changes rarely and takes as long to look up as several ticks: the devices of local filesystems, limits
# that no watched file shows.
LOOK_UP_SECONDS = 300.0
# The list of GPUs.
DEVICES_SECONDS = 120.0
# An administrator may change a GPU's power limit while a job runs; a reading may wake the driver.
POWER_LIMIT_SECONDS = 10.0


class Lap:
    """Measures the time between two readings of a counter.

    A collector's constructor takes its first reading without a clock; the age of that reading counts from the
    first call of `seconds`.

    Attributes:
        began: when the lap began.
    """

    def __init__(self) -> None:
        self.began = math.inf

    def seconds(self, now: float) -> float | None:
        """Returns the seconds since the last lap and starts a new one; None while too short for a rate.

        Args:
            now: seconds of a clock that never goes back. If it does, a new lap starts.
        """
        passed = now - self.began
        if passed < 0:  # also at the first call
            self.began = now
            return None
        if passed < SHORTEST_RATE_SECONDS:
            return None
        self.began = now
        return passed


class Pause:
    """Limits how often a source is read.

    Args:
        seconds: shortest time from one reading to the next.
        read: True if the source has just been read, in the constructor of a collector, which has no clock:
            the first call of `renew_if_over` then starts the first pause.
        first: length of the first pause, as a share: collectors that are built together should not all look
            up something at the same tick.

    Attributes:
        over_at: when the pause is over; infinity before the first one.
    """

    def __init__(self, seconds: float, *, read: bool = True, first: float = 1.0) -> None:
        self._seconds = seconds
        self._first_seconds = first * seconds
        self.over_at = math.inf if read else -math.inf

    def renew_if_over(self, now: float) -> bool:
        """Returns whether it is time to read; if so, starts the next pause."""
        if self.over_at == math.inf:
            self.over_at = now + self._first_seconds
        if now < self.over_at and self.over_at - now <= self._seconds:
            return False
        self.over_at = now + self._seconds
        return True

    def lengthen(self, now: float, seconds: float) -> None:
        """Starts a longer pause now."""
        self._seconds = seconds
        self.over_at = now + seconds


class Ration:
    """Keeps an expensive reading below a small share of a core, however much it costs on this host.

    Args:
        rest: seconds from one start to the next per second of CPU time spent: 1000 is 0.1 % of a core.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._began = -math.inf
        self._spent = 0.0

    def over(self, now: float) -> bool:
        """True if the last reading started long enough ago. A clock that is set back ends the rest."""
        passed = now - self._began
        return passed < 0 or passed >= self._rest * self._spent

    def begin(self, now: float) -> None:
        """Records the start of a reading."""
        self._began = now
        self._spent = 0.0

    def charge(self, seconds: float) -> None:
        """Adds CPU time that the reading has used so far."""
        self._spent += seconds
