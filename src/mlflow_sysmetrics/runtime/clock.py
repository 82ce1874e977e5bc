"""The two clocks of the daemon, as one argument that tests move by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

# A step back by less than this is an adjustment, and timestamps wait for it; a larger one is a new truth.
_ADJUSTMENT_MILLISECONDS = 1000


class Clock(Protocol):
    """Tells the time."""

    def monotonic(self) -> float:
        """Returns seconds that never go back; only differences mean something."""

    def wall(self) -> int:
        """Returns milliseconds since 1970, which may jump."""


class SystemClock:
    """The clocks of the operating system.

    The functions are bound when the module is loaded, which `import mlflow` sees to: a test of the user's
    that freezes `time.monotonic` for its own thread would otherwise have that thread and the daemon's wait
    for each other on different clocks.
    """

    def monotonic(self, _monotonic: Callable[[], float] = time.monotonic) -> float:
        """Returns seconds that never go back."""
        return _monotonic()

    def wall(self, _time_ns: Callable[[], int] = time.time_ns) -> int:
        """Returns milliseconds since 1970."""
        return _time_ns() // 1_000_000


class Stamper:
    """Gives every tick a timestamp of its own.

    Two ticks in one millisecond would otherwise be one point to the server, whose key is
    (run, key, timestamp, step, value).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        """Returns milliseconds since 1970, larger than the last time unless the clock was really set back."""
        now = self._clock.wall()
        if 0 <= self._last - now < _ADJUSTMENT_MILLISECONDS:
            now = self._last + 1
        self._last = now
        return now
