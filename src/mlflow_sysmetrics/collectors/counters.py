"""Counters of kernels, drivers and hardware: how much they grew, without what a bad reading makes up.

Kernels and drivers have shown a counter as 0, or with all bits set, at one reading and correctly at the next
(netdata/netdata#6077). Taken for a new base, such a reading adds the counter's whole life to a total. So a
reading is believed at once only if it grew by what the hardware can do (`bounds`); any other is doubted until
the next one decides:

* the next one goes on where the counter was: the doubted reading is ignored, and nothing is lost;
* it goes on from the doubted reading: the counter has restarted, and the growth of one interval is unknown;
  or it has 32 bits and has wrapped, and nothing is lost. Where it is known when a counter wraps, a wrap is
  believed at once;
* neither: it is doubted in its turn. If counters outgrow their bound twice in a row, the bound becomes wider.

A counter that fell to no less than half is taken for one that briefly reports too little, as some drivers do:
it counts again once it has passed its previous value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import sub
from typing import NamedTuple

NO_CLOCK = math.inf  #: the time of a reading in a collector's constructor, which has no clock

# "Not available" of drivers and firmware: all bits set, with or without a sign.
ALL_ONES = frozenset({2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1})  #: never believed
# Drivers update their counters in steps: the growth of a longer time may fall into a short span.
_SHORTEST_SECONDS = 1.0
_WORD_32 = 2**32
_MOST_DIPS = 60  # readings after which a counter that fell to no less than half has restarted all the same
_UNUSABLE_AFTER = 3  # readings in a row that were not believed
_WIDER = 16
# A counter of 32 bits is told from a restarted one by its pace: wrapped, it grew about as much as before.
_PACE, _PACE_SLACK = 8, 2**20
_FORGET_SECONDS = 60.0


class Step(NamedTuple):
    """Growth of some counters between two readings that are believed.

    Attributes:
        grown: growth of each counter; never negative.
        span: seconds between the two readings; 0 if unknown.
        whole: False if more happened since the step before than `grown` says.
    """

    grown: tuple[int, ...]
    span: float
    whole: bool = True


_make = tuple.__new__  # half the cost of calling the class: a dozen steps are made at every tick


class _Reading(NamedTuple):
    counts: tuple[int, ...]
    at: float


class Counters:
    """Follows the counters of one device, which are read together.

    Args:
        most: the most that each counter can grow in a second.
        wraps_at: the value at which they restart at 0; 0 if unknown: then 32 bits are suspected.
        from_zero: a counter that is first read as 0 may grow until the next reading by this share of `most`;
            if it grew by more, the 0 was not its value. For bounds that are far above ordinary use.

    Attributes:
        counts: the last reading that is believed; empty before the first.
        read_at: when it was read.
        pace: growth of each counter in the last step.
        plain: True if nothing is doubted. Then a reading is believed if it grew by at most `surely` and is no
            value with all bits set. A collector may make such a step itself, by setting `counts`, `read_at`
            and `pace`: a processor that was idle takes as long to find its way into another function as for a
            system call.
        surely: what every counter can grow at least in a second.
    """

    __slots__ = (
        "_before_restart",
        "_dips",
        "_doubt",
        "_from_zero",
        "_most",
        "_refused",
        "_unchanged",
        "_wraps_at",
        "counts",
        "pace",
        "plain",
        "read_at",
        "surely",
    )

    def __init__(self, *most: float, wraps_at: int = 0, from_zero: float = 1.0) -> None:
        self.read_at = NO_CLOCK
        self._most = most
        self.surely = min(most)
        self._wraps_at = wraps_at
        self._from_zero = from_zero
        self._unchanged = self.pace = (0,) * len(most)
        self.counts: tuple[int, ...] = ()
        self.plain = False
        self._doubt: _Reading | None = None
        self._before_restart: _Reading | None = None
        self._dips = self._refused = 0

    @property
    def unusable(self) -> bool:
        """True if several readings in a row were not believed."""
        return self._refused >= _UNUSABLE_AFTER

    def follow(self, counts: tuple[int, ...], now: float) -> Step | None:
        """Returns the growth since the last reading that is believed; None if this one is not, yet.

        Args:
            counts: the counters, in the order of `most`.
            now: seconds of a clock that never goes back.
        """
        before = self.counts
        span = now - self.read_at
        if span < 0:  # a clock that was set back, or the first reading had none
            span = 0.0
        if self.plain:
            # The bounds of one second hold for any span, and for nearly all readings. Most have one counter.
            if len(counts) == 1:
                grown = (counts[0] - before[0],)
                is_plain = 0 <= grown[0] <= self.surely and counts[0] not in ALL_ONES
            else:
                grown = tuple(map(sub, counts, before))
                is_plain = min(grown) >= 0 and max(grown) <= self.surely and ALL_ONES.isdisjoint(counts)
            if is_plain:
                self.counts, self.read_at, self.pace = counts, now, grown
                return _make(Step, (grown, span, True))
        if not before:
            return self._start(counts, now)
        return self._judge(before, _Reading(counts, now), span)

    def begin(self, now: float) -> None:
        """Gives a reading that was taken without a clock its time, from which the first step counts."""
        if self.read_at == NO_CLOCK:
            self.read_at = now

    def restart(self, counts: tuple[int, ...], now: float) -> None:
        """Counts from here on; the growth since the last reading is unknown."""
        self.counts, self.read_at = counts, now
        self.plain = 0 not in counts
        self._doubt = self._before_restart = None
        self._dips = self._refused = 0

    def _start(self, counts: tuple[int, ...], now: float) -> Step | None:
        """Returns the step to the first reading that can be one."""
        if not _is_valid(counts):
            self._refused += 1
            return None
        self.restart(counts, now)
        return Step(self._unchanged, 0.0)

    def _judge(self, before: tuple[int, ...], current: _Reading, span: float) -> Step | None:
        """Returns the same as `follow`, for a reading that is not an ordinary one."""
        counts, now = current
        if counts == before:
            return self._accept(counts, now, Step(self._unchanged, span))
        back = self._before_restart
        returned = back and self._grown(back.counts, counts, now - back.at)
        if back is not None and returned is not None:
            # All counters stood still since they restarted, and now those of before come back.
            self._before_restart = None
            return self._accept(counts, now, Step(returned, now - back.at, whole=False))
        grown = self._grown(before, counts, span)
        if grown is None and self._wraps_at and 0 not in counts:
            grown = self._wrapped(before, counts, span)
        if grown is None:
            step = self._confirmed(before, current)
            if step is None:
                self._doubt_it(before, current, span)
            return step
        if not self.plain and back is None and self._doubt is None and self._came_late(before, grown, span):
            self.restart(counts, now)
            self.plain = True
            return Step(self._unchanged, 0.0, whole=False)
        self._before_restart = None
        return self._accept(counts, now, Step(grown, span))

    def _accept(self, counts: tuple[int, ...], now: float, step: Step) -> Step:
        self.counts, self.read_at, self.pace = counts, now, step.grown
        self._doubt = None
        self._dips = self._refused = 0
        if self._before_restart is None:
            self.plain = True
        return step

    def _grown(self, before: Sequence[int], now: Sequence[int], span: float) -> tuple[int, ...] | None:
        """Returns the growth of each counter; None if one of them cannot have grown so."""
        allowed = max(span, _SHORTEST_SECONDS)
        grown = tuple(new - old for new, old in zip(now, before, strict=True))
        possible = all(0 <= growth <= most * allowed for growth, most in zip(grown, self._most, strict=True))
        return grown if possible and _is_valid(now) else None

    def _came_late(self, before: Sequence[int], grown: Sequence[int], span: float) -> bool:
        """True if a counter was first read as 0, and then as far more than it can have counted meanwhile."""
        allowed = max(span, _SHORTEST_SECONDS) * self._from_zero
        return any(
            not old and growth > most * allowed
            for old, growth, most in zip(before, grown, self._most, strict=True)
        )

    def _has_dipped(self, before: tuple[int, ...], counts: tuple[int, ...], span: float) -> bool:
        """True if some counters report too little for a while, and the others are as they can be."""
        if self._wraps_at or self._dips >= _MOST_DIPS:
            return False
        if any(new < old // 2 for old, new in zip(before, counts, strict=True)):
            return False
        lasting = tuple(map(max, before, counts))
        return lasting != counts and self._grown(before, lasting, span) is not None

    def _confirmed(self, before: tuple[int, ...], current: _Reading) -> Step | None:
        """Returns the step over a restart before the doubted reading; None if there was none."""
        doubt = self._doubt
        if doubt is None:
            return None
        again = self._grown(doubt.counts, current.counts, current.at - doubt.at)
        if again is not None:
            return self._restarted(before, doubt, again, current)
        if not (all(map(_in_order, before, doubt.counts, current.counts)) and _is_valid(current.counts)):
            return None
        self._most = tuple(_WIDER * most for most in self._most)
        self.surely = min(self._most)
        span = max(current.at - self.read_at, 0.0)
        grown = self._grown(before, current.counts, span)
        if grown is not None:  # the hardware is faster than its bound
            return self._accept(*current, Step(grown, span))
        self.restart(*current)
        return Step(self._unchanged, 0.0, whole=False)

    def _doubt_it(self, before: tuple[int, ...], current: _Reading, span: float) -> None:
        """Remembers a reading that is not believed."""
        self.plain = False
        self._refused += 1
        if self._has_dipped(before, current.counts, span):
            self._dips += 1
        else:
            self._doubt = current if _is_valid(current.counts) else None

    def _restarted(
        self, before: tuple[int, ...], doubt: _Reading, again: tuple[int, ...], current: _Reading
    ) -> Step:
        """Returns the step over a restart that the second reading confirms, or over a wrap."""
        at = self.read_at
        around = self._wrapped(before, current.counts, max(current.at - at, 0.0))
        old = _Reading(before, at)
        self.restart(current.counts, current.at)
        if around is not None:
            self.plain = True
            return Step(around, max(current.at - at, 0.0))
        self.plain = any(again)
        if not self.plain and at != NO_CLOCK:
            self._before_restart = old
        return Step(again, max(current.at - doubt.at, 0.0), whole=False)

    def _wrapped(
        self, before: tuple[int, ...], counts: tuple[int, ...], span: float
    ) -> tuple[int, ...] | None:
        """Returns the growth of counters that went on from 0 because they were full, else None."""
        full = self._wraps_at or _WORD_32
        grown = self._grown(
            before,
            [new + full if new < old else new for old, new in zip(before, counts, strict=True)],
            span,
        )
        if grown is None or self._wraps_at:
            return grown
        for old, new, growth, pace in zip(before, counts, grown, self.pace, strict=True):
            if new < old and not (full // 2 <= old < full and growth <= _PACE * pace + _PACE_SLACK):
                return None
        return grown


class CounterSet:
    """Follows the counters of several devices by name. One that disappears is remembered for a minute.

    Args:
        follower: returns what follows the counters of a device, by its name.

    Attributes:
        doubted: True if a device was not believed at the last reading, so that sums over all are too small.
        unusable: devices whose counters are not believed any more; the sums are those of the others.
    """

    def __init__(self, follower: Callable[[str], Counters]) -> None:
        self.doubted = False
        self.unusable: tuple[str, ...] = ()
        self._follower = follower
        self._known: dict[str, Counters] = {}
        self._steps: dict[str, Step] = {}  # since the last rates

    def follow(self, readings: Mapping[str, tuple[int, ...]], now: float) -> dict[str, Step]:
        """Returns the step of each device that is believed; of one that is new, a step without growth."""
        steps = {}
        doubted = []
        known, pending = self._known, self._steps
        for name, counts in readings.items():
            counters = known.get(name)
            if counters is None:
                counters = known[name] = self._follower(name)
            step = counters.follow(counts, now)
            if step is None:
                doubted.append(name)
            else:
                steps[name] = step
                pending[name] = _joined(pending[name], step) if name in pending else step
        if doubted or self.doubted or self.unusable:
            self.unusable = tuple(name for name in doubted if known[name].unusable)
            self.doubted = len(doubted) > len(self.unusable)
        if len(known) > len(readings):
            self._forget(readings, now)
        return steps

    def only(self) -> Counters | None:
        """Returns what follows the one device there is, if nothing is doubted and no step waits for rates."""
        if len(self._known) != 1 or self.doubted or self.unusable or self._steps:
            return None
        (counters,) = self._known.values()
        return counters if counters.plain else None

    def begin(self, now: float) -> None:
        """Gives readings that were taken without a clock their time."""
        for counters in self._known.values():
            counters.begin(now)

    def rates(self) -> list[float] | None:
        """Returns the growth per second of each counter since the last rates, summed over the devices.

        Each device counts over its own time: a reading that was not believed makes it longer. None while a
        device is doubted, or if the time is unknown.
        """
        if self.doubted:
            return None
        pending, self._steps = self._steps, {}
        sums: list[float] = []
        for grown, span, _ in pending.values():
            if span > 0:
                for at, growth in enumerate(grown):
                    if at < len(sums):
                        sums[at] += growth / span
                    else:
                        sums.append(growth / span)
        return sums or None

    def _forget(self, readings: Mapping[str, tuple[int, ...]], now: float) -> None:
        for name in self._known.keys() - readings.keys():
            if not now - self._known[name].read_at <= _FORGET_SECONDS:
                del self._known[name]


def _joined(first: Step, second: Step) -> Step:
    grown = tuple([one + more for one, more in zip(first.grown, second.grown, strict=True)])
    return Step(grown, first.span + second.span, first.whole and second.whole)


def _is_valid(counts: Sequence[int]) -> bool:
    return min(counts) >= 0 and ALL_ONES.isdisjoint(counts)


def _in_order(first: int, second: int, third: int) -> bool:
    return first <= second <= third
