"""How long to wait after an attempt that failed."""

from __future__ import annotations

import math
from collections.abc import Callable

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
_LONGEST_REQUESTED_SECONDS = 600.0  # a proxy that asks for a day is a mistake, and the points wait for it
_MOST_FAILURES = 16  # 2**16 s is far over the longest pause


def pause_seconds(failures: int, reason: Exception, jitter: Callable[[], float]) -> float:
    """Returns how long to wait: twice as long after each failure, at least as long as the server asked for.

    Args:
        failures: how many attempts in a row had failed before this one.
        reason: what the attempt raised. `Fault`, which is defined above this floor, has the attributes
            ``refuses_credentials`` and ``retry_after``.
        jitter: returns a factor around 1, so that a thousand programs do not come back at once.
    """
    doubled = _FIRST_SECONDS * 2.0 ** min(failures, _MOST_FAILURES)
    # Wrong credentials are put right by a person or a job, not by the passing of a second.
    slow = bool(getattr(reason, "refuses_credentials", False))
    return max((_LONGEST_SECONDS if slow else min(doubled, _LONGEST_SECONDS)) * jitter(), asked_for(reason))


def asked_for(reason: Exception) -> float:
    """Returns how many seconds the server asked to be left alone; 0 where it did not."""
    asked: float | None = getattr(reason, "retry_after", None)
    return min(max(asked or 0.0, 0.0), _LONGEST_REQUESTED_SECONDS)


class Rest:
    """How long a server is left alone.

    Args:
        jitter: as in `pause_seconds`.

    Attributes:
        until: monotonic time before which it is not tried.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.until = -math.inf
        self._jitter = jitter
        self._asked_until = -math.inf  # the server's own wish, which nobody overrules
        self._failed_at = -math.inf
        self._failures = 0

    def failed(self, now: float, reason: Exception) -> None:
        """Begins a rest, longer than the last one, after an attempt that failed."""
        self._failed_at = now
        self._asked_until = now + asked_for(reason)
        self.until = now + pause_seconds(self._failures, reason, self._jitter)
        self._failures += 1

    def shorten(self, now: float) -> None:
        """Allows one attempt for somebody who waits, a second after the last one at the earliest."""
        self.until = min(self.until, max(now, self._failed_at + _FIRST_SECONDS, self._asked_until))

    def end(self) -> None:
        """Ends the rest: the server has answered."""
        self.until = self._asked_until = -math.inf
        self._failures = 0
