"""Between what and what a value must lie, when others were asked right before and right after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import witnesses
from witnesses import Statements


class Bracket(NamedTuple):
    """Between what and what a value must lie."""

    low: float
    high: float

    def over(self, other: Bracket) -> Bracket:
        """Returns the bracket of the quotient."""
        return Bracket(self.low / other.high, self.high / other.low)

    def times(self, factor: float) -> Bracket:
        """Returns the bracket of the product."""
        return Bracket(self.low * factor, self.high * factor)

    def distance(self, value: float) -> float:
        """Returns how far a value lies outside."""
        return max(self.low - value, value - self.high, 0.0)


class Moment(NamedTuple):
    """One tick: our values, and what one witness said right before and right after."""

    ours: Mapping[str, float]
    before: Statements
    after: Statements

    def level(self, name: str) -> Bracket:
        """Returns the bracket of a level."""
        return Bracket(*sorted((self.before[name], self.after[name])))

    def grown(self, name: str, since: Moment) -> Bracket:
        """Returns the bracket of what a total has grown."""
        return Bracket(
            max(self.before[name] - since.after[name], 0.0), max(self.after[name] - since.before[name], 0.0)
        )


class Ticks(NamedTuple):
    """The ticks that a comparison may look at: the first, the one before, this one."""

    first: Moment
    last: Moment
    now: Moment

    def rate(self, name: str, of: str = witnesses.SECONDS) -> Bracket:
        """Returns the bracket of what one total grew since the last tick per growth of another."""
        return self.now.grown(name, self.last).over(self.now.grown(of, self.last))
