"""How long the sampler may be held up by a disk that is slow."""

from __future__ import annotations

import math

from mlflow_sysmetrics.clock import Clock

# A local disk under load answers within a fifth of a second, the longest pause that Linux has for a writer.
# It is the sampler that waits so long: a tick may be late, and is skipped.
PATIENCE_SECONDS = 1.0

_SHARE = 0.1  # of the time, in the long run: of ten ticks one may be late
_REST_SECONDS = 10.0  # in which that share adds up to the whole patience again
# Windows are seldom longer: a disk that is too slow for each of them is so all the time.
_FORGOTTEN_SECONDS = 120.0
_ROUNDING_SECONDS = 0.001


class DiskPatience:
    """Bounds all waits together, of however many runs: a second at once, a tenth of the time on the whole.

    Args:
        clock: tells the time.
        seconds: how much there is of it at once.
    """

    def __init__(self, clock: Clock, seconds: float = PATIENCE_SECONDS) -> None:
        self.seconds = seconds
        self._clock = clock
        self._spent = 0.0
        self._counted_at = self._rests_until = self._ran_out_at = -math.inf
        self._slow_since: float | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether nobody is to wait now."""
        return self._clock.monotonic() < self._rests_until

    @property
    def left(self) -> float:
        """How many seconds the next wait may take."""
        self._regain()
        return max(self.seconds - self._spent, 0.0)

    @property
    def slow_seconds(self) -> float:
        """For how long it has been used up again and again; 0 where once was the only time."""
        now = self._clock.monotonic()
        if self._slow_since is None or now - self._ran_out_at >= _FORGOTTEN_SECONDS:
            return 0.0
        return now - self._slow_since

    def waited(self, since: float) -> None:
        """Takes note of a wait that began at a monotonic time and is over."""
        now = self._counted_at = self._clock.monotonic()
        self._spent += now - since
        if self._spent < self.seconds - _ROUNDING_SECONDS:
            return
        again = now - self._ran_out_at < _FORGOTTEN_SECONDS
        if not again:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = self._ran_out_at
        self._ran_out_at = now
        self._rests_until = now + _REST_SECONDS
        self._spent = 0.0  # when it has rested

    def _regain(self) -> None:
        now = self._clock.monotonic()
        self._spent = max(self._spent - (now - self._counted_at) * _SHARE, 0.0)
        self._counted_at = now
