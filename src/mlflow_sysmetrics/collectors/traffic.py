"""Totals over interfaces that come, go and start again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Traffic(NamedTuple):
    """Bytes since an interface came up."""

    received: int
    transmitted: int


class TrafficTotals:
    """Adds up what interfaces count, from the first sight of each.

    An interface that appears later brings its traffic from then on; one that goes away leaves what it had;
    one whose counter went back has started again from zero.
    """

    def __init__(self) -> None:
        self._last: dict[str, Traffic] = {}
        self._received = 0
        self._transmitted = 0

    def update(self, interfaces: Mapping[str, Traffic]) -> Traffic:
        """Takes the counters of all interfaces and returns the totals so far."""
        for name, now in interfaces.items():
            before = self._last.get(name, now)
            self._received += _growth(before.received, now.received)
            self._transmitted += _growth(before.transmitted, now.transmitted)
        self._last = dict(interfaces)
        return Traffic(self._received, self._transmitted)


def _growth(before: int, now: int) -> int:
    return now - before if now >= before else now
