"""How long a program may be held up by a server that does not answer."""

from __future__ import annotations

# What is left of the flush timeout goes to the work around the waiting, so that the whole stays below it.
_FIRST_SHARE = 0.9
_LATER_SHARE = 0.5


class Patience:
    """Bounds the waiting in vain of a whole outage by one flush timeout, however many runs end in it.

    The first wait of an outage may take nine tenths of its timeout; each later one half of what is then left.
    Waits in several threads at once count once. Any delivery ends the outage.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._accounted_until = float("-inf")

    def seconds(self, timeout: float) -> float:
        """Returns how long a wait with that timeout may last."""
        if self._spent == 0:
            return timeout * _FIRST_SHARE
        return max(timeout - self._spent, 0.0) * _LATER_SHARE

    def waited_in_vain(self, since: float, until: float) -> None:
        """Takes note of a wait, in monotonic seconds, that ended without the delivery it waited for."""
        self._spent += max(until - max(since, self._accounted_until), 0.0)
        self._accounted_until = max(until, self._accounted_until)

    def reward(self) -> None:
        """Takes note of a delivery."""
        self._spent = 0.0
