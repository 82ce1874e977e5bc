"""The monotonic and the wall clock as one argument, which tests move by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

# A smaller step back is an adjustment, and timestamps wait for it; after a larger one the clock is believed.
_ADJUSTMENT_MILLISECONDS = 1000


class Clock(Protocol):
    """A monotonic and a wall clock."""

    def monotonic(self) -> float:
        """Returns seconds that never go back; only differences are meaningful."""

    def wall(self) -> int:
        """Returns milliseconds since 1970, which may jump."""


class SystemClock:
    """The clocks of the operating system.

    The functions are bound when the module is imported, during `import mlflow`. Otherwise a user's test that
    freezes `time.monotonic` would leave its thread and the daemon's waiting for each other on different
    clocks.
    """

    monotonic: Callable[[], float] = staticmethod(time.monotonic)  #: seconds that never go back

    def wall(self, _time_ns: Callable[[], int] = time.time_ns) -> int:
        """Returns milliseconds since 1970."""
        return _time_ns() // 1_000_000


class Stamper:
    """Gives every tick a distinct timestamp.

    The server identifies a point by (run, key, timestamp, step, value), so two ticks within one millisecond
    would otherwise become one point.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        """Returns milliseconds since 1970, later than the last call unless the clock was really set back."""
        now = self._clock.wall()
        if 0 <= self._last - now < _ADJUSTMENT_MILLISECONDS:
            now = self._last + 1
        self._last = now
        return now
