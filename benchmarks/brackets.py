"""Bounds for a value, from witnesses that were read right before and right after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import witnesses
from witnesses import Statements


class Bracket(NamedTuple):
    """Lower and upper bound of a value."""

    low: float
    high: float

    def over(self, other: Bracket) -> Bracket:
        """Returns the bounds of the quotient."""
        return Bracket(self.low / other.high, self.high / other.low)

    def times(self, factor: float) -> Bracket:
        """Returns the bounds of the product."""
        return Bracket(self.low * factor, self.high * factor)

    def distance(self, value: float) -> float:
        """Returns how far a value is out of bounds; 0 if it is within."""
        return max(self.low - value, value - self.high, 0.0)


class Moment(NamedTuple):
    """One tick: our values, and the statements of one witness right before and right after."""

    ours: Mapping[str, float]
    before: Statements
    after: Statements

    def level(self, name: str) -> Bracket:
        """Returns the bounds of a level."""
        return Bracket(*sorted((self.before[name], self.after[name])))

    def grown(self, name: str, since: Moment) -> Bracket:
        """Returns the bounds of the growth of a total."""
        return Bracket(
            max(self.before[name] - since.after[name], 0.0), max(self.after[name] - since.before[name], 0.0)
        )


class Ticks(NamedTuple):
    """The ticks available to a comparison: the first, the previous and the current one."""

    first: Moment
    last: Moment
    now: Moment

    def rate(self, name: str, of: str = witnesses.SECONDS) -> Bracket:
        """Returns the bounds of one total's growth since the last tick, divided by another total's growth."""
        return self.now.grown(name, self.last).over(self.now.grown(of, self.last))
