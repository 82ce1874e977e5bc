"""Keeps dear readings below a small share of a core, however dear they are on this host."""

from __future__ import annotations

import math


class Ration:
    """Tells when a dear reading may begin again.

    Args:
        rest: seconds from one beginning to the next per second of CPU time spent: 1000 is 0.1 % of a core.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._began = -math.inf
        self._spent = 0.0

    def over(self, now: float) -> bool:
        """Tells whether the last reading began long enough ago. A clock set back ends the rest."""
        passed = now - self._began
        return passed < 0 or passed >= self._rest * self._spent

    def begin(self, now: float) -> None:
        """Notes that a reading begins."""
        self._began = now
        self._spent = 0.0

    def charge(self, seconds: float) -> None:
        """Adds CPU time that the reading has cost so far."""
        self._spent += seconds
