"""Pauses that grow after each failure, within bounds.

`stamina` covers retries that a caller waits out (the preflight). The pauses here belong to loops that do
other work meanwhile, so they return a number instead of sleeping.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
_LONGEST_REQUESTED_SECONDS = 600.0  # a proxy that asks for a day is a mistake, and the points wait for it
_MOST_DOUBLINGS = 16  # 2**16 s exceeds every pause here, and 2.0**1024 overflows


def doubled(failures: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Returns the pause after a failure: twice as long for each failure before it, up to the longest.

    Args:
        failures: earlier failures in a row.
        first_seconds: the pause after the first failure.
        longest_seconds: the longest pause.
    """
    return min(first_seconds * 2.0 ** min(failures, _MOST_DOUBLINGS), longest_seconds)


def pause_seconds(failures: int, reason: Exception, jitter: Callable[[], float]) -> float:
    """Returns the pause after a failed delivery, at least as long as the server asked for.

    Args:
        failures: earlier failures in a row.
        reason: what the attempt raised. The class `Fault`, which belongs to a floor above this one, has the
            attributes ``refuses_credentials`` and ``retry_after``.
        jitter: returns a factor around 1, so that a thousand programs do not retry at once.
    """
    # A person or a job fixes wrong credentials; a second makes no difference.
    slow = bool(getattr(reason, "refuses_credentials", False))
    pause = (
        _LONGEST_SECONDS
        if slow
        else doubled(failures, first_seconds=_FIRST_SECONDS, longest_seconds=_LONGEST_SECONDS)
    )
    return max(pause * jitter(), asked_for(reason))


def asked_for(reason: Exception) -> float:
    """Returns the seconds that the server asked for (Retry-After), at most 600; 0 if it did not ask."""
    asked: float | None = getattr(reason, "retry_after", None)
    return min(max(asked or 0.0, 0.0), _LONGEST_REQUESTED_SECONDS)


class Backoff:
    """The pause before a server is tried again.

    Args:
        jitter: as in `pause_seconds`.

    Attributes:
        until: monotonic time of the next attempt.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.until = -math.inf
        self._jitter = jitter
        self._asked_until = -math.inf  # from Retry-After; `shorten` respects it
        self._failed_at = -math.inf
        self._failures = 0

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self, now: float, reason: Exception) -> None:
        """Starts a pause after a failed attempt, longer than the last one."""
        self._failed_at = now
        self._asked_until = now + asked_for(reason)
        self.until = now + pause_seconds(self._failures, reason, self._jitter)
        self._failures += 1

    def shorten(self, now: float) -> None:
        """Allows one attempt for a waiting caller, at the earliest one second after the last attempt."""
        self.until = min(self.until, max(now, self._failed_at + _FIRST_SECONDS, self._asked_until))

    def reset(self) -> None:
        """Ends the pause, because the server has answered."""
        self.until = self._asked_until = -math.inf
        self._failures = 0
