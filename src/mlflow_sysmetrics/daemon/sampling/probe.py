"""A collector behind a guard.

Whatever a collector raises, the tick and the other collectors go on. A collector that fails is tried again
with back-off and never dropped for good. One that does not return is left behind, with the thread that reads
it; when it returns, it is built anew, since its counters may have stood still for hours.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from mlflow_sysmetrics.collectors import AnyCollector, Collector
from mlflow_sysmetrics.collectors.registry import Build, name_of, resolve
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.kept_files import KeptFiles
from mlflow_sysmetrics.machine.reasons import Malformed, why_unread
from mlflow_sysmetrics.runtime.backoff import doubled
from mlflow_sysmetrics.samples import Sample

OK = "ok"
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 300.0
# A collector that fails at every other reading does not recover in between.
_SUCCESSES_THAT_COUNT = 10
# Until then one that fails is asked at each tick, and answers at once.
_ASKED_AGAIN_SECONDS = 10.0
# Bounds the log even if messages contain a number that differs each time, or a device comes and goes all day.
_LINES_AT_ONCE = 20
_SECONDS_PER_LINE = 3600.0
_LEAST, _MOST = -math.inf, math.inf
# A source that has not answered for this long is said to hang. Most answer within a millisecond; a driver
# that starts a GPU takes seconds, and is not waited for either.
HANGS_SECONDS = 5.0
# "gpu_3 power: no permission": a gap of one of several similar devices.
_NUMBERED = re.compile(r"([a-z]+_)(\d+)(\b.*)", re.DOTALL)

_logger = Log()


class Probe:
    """Builds a collector at its first reading, in the thread that reads it, and reads it.

    Args:
        collector: class of the collector, or its entry in the registry.
        host: the machine.
        build: builds it, from `registry.resolve_all`; by default its source is looked for now.
        transparent: lets exceptions through, so that a collector that raises fails the test.

    Attributes:
        name: what users know it by: its family, and its part of that, as "gpu (nvidia)".
        patience: how many seconds a reading may take before the next collector is read without waiting for
            it, if that is longer than usual; for a source that has been slow but has answered.
        began_at: when the reading began that another thread still waits for; None if there is none.
        host: the machine.
        paused_until: when the pause after a failure ends, unless a change of the job's limits ends it before.
        hangs: whether a reading has not returned for so long that it is said to hang.
    """

    def __init__(
        self, collector: AnyCollector, host: Host, build: Build | None = None, *, transparent: bool = False
    ) -> None:
        self.name = name_of(collector)
        self.patience = 0.0
        self.hangs = False
        self._health = "not read yet"
        self.began_at: float | None = None
        self._build = build or resolve(collector, host)
        self.host = host
        self._transparent = transparent
        self._collector: Collector | None = None
        self._is_stale = False
        self._is_settled = False
        self._failures = self._successes = 0
        self._logged: set[tuple[int, type[BaseException]]] = set()
        self._gaps = _Gaps()
        self._log_budget = _LogBudget()
        self._recovered = False
        self.paused_until = -math.inf
        self._limits_version = 0

    def read(self, now: float, *, whole: bool = True) -> Sequence[Sample]:
        """Returns the samples of one tick; none while the collector is unavailable, failing or paused.

        Args:
            now: seconds of a clock that never goes back.
            whole: False if the collector may leave out what can wait until a point is due.
        """
        # A source that a change of the job's limits brings (throttling, by a quota) is not waited for.
        if now < self.paused_until and self.rests(now):
            return ()
        samples: list[Sample] = []
        try:
            collector = None if self._is_stale else self._collector
            if collector is None:
                collector = self._built()
            collect = collector.collect if whole else getattr(collector, "levels", collector.collect)
            for sample in collect(now):
                if _LEAST < sample[2] < _MOST:  # neither infinite nor NaN
                    samples.append(sample)  # noqa: PERF401 - keeps what was read before a failure
        except Unavailable as reason:
            self._collector = None
            self._pause(now, f"unavailable: {reason}", reason)
        except BaseException as error:
            if self._transparent:
                raise
            # A fault of the collector, SystemExit included; it must not end the sampling.
            self._pause(now, _health_after(error), error)
        else:
            gaps = collector.gaps
            # Nothing to follow, as nearly always.
            if not self._is_settled or (gaps is not self._gaps.last and tuple(gaps) != self._gaps.last):
                self._succeed(now, gaps)
        return samples

    def rests(self, now: float) -> bool:
        """Returns whether a reading would yield nothing, because the collector is paused."""
        return now < self.paused_until and self.host.files.version == self._limits_version

    @property
    def can_wait(self) -> bool:
        """Whether a later reading tells the same: the collector is cumulative, and nothing is wrong."""
        return self._is_settled and not self._is_stale and getattr(self._collector, "cumulative", False)

    @property
    def health(self) -> str:
        """The word "ok", "ok, but ..." with the gaps, or why the collector yields nothing."""
        return f"hanging: no answer for over {HANGS_SECONDS:g} s" if self.hangs else self._health

    def hangs_in(self, now: float) -> float:
        """Returns the seconds until it counts as hanging; infinity if it does already, or has answered."""
        began_at = self.began_at
        return math.inf if began_at is None or self.hangs else began_at + HANGS_SECONDS - now

    def log_hanging(self) -> None:
        """Records and logs that it hangs."""
        self.hangs = True
        _logger.warning(
            "mlflow-sysmetrics: Collector %s hangs: no answer for over %g s. The others go on; it is "
            "read again once it answers.",
            self.name,
            HANGS_SECONDS,
        )

    def answer_late(self, now: float) -> None:
        """Records that the reading that was left behind has returned; the next one starts afresh."""
        began_at, hung = self.began_at, self.hangs
        seconds = 0.0 if began_at is None else now - began_at
        # As slow as that it may be without another thread; what hangs does not become a habit.
        self.patience = self.patience if hung else min(2 * seconds, HANGS_SECONDS)
        self.renew()
        self.hangs = False
        self.began_at = None  # last: from here on the sampler reads it
        if hung:
            _logger.info("mlflow-sysmetrics: Collector %s answers again after %.0f s.", self.name, seconds)

    def renew(self) -> None:
        """Rebuilds the collector at the next reading, which also closes the old one: it may hang."""
        self._is_stale = True

    def _built(self) -> Collector:
        self._collector, self._is_stale = None, False  # closes the old one first
        self._collector = collector = self._build(self.host)
        return collector

    def _pause(self, now: float, health: str, error: BaseException) -> None:
        # To look for an absent source takes as long as a tick: each pause is four times the one before.
        doublings = 2 * self._failures if isinstance(error, Unavailable) else self._failures
        pause = doubled(doublings, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
        self._failures += 1
        self._successes = 0
        self._is_settled = False
        self.paused_until = now + pause
        self._limits_version = self.host.files.version
        self._health = health
        # An absent source is normal. A failing one is logged once until it has recovered.
        level = logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING
        if (level, type(error)) in self._logged or not (level == logging.DEBUG or self._log_budget.take(now)):
            return
        self._logged.add((level, type(error)))
        _logger.log(
            level,
            "mlflow-sysmetrics: Collector %s is %s; retrying with increasing pauses.",
            self.name,
            health,
        )

    def _succeed(self, now: float, gaps: Sequence[str]) -> None:
        first = not self._gaps.updated
        self._recovered |= self._gaps.update(gaps) | self._has_recovered()
        self._health = self._gaps.health
        new = self._gaps.new
        if new and self._log_budget.take(now):
            self._gaps.mark_logged()
            # What this machine never had is normal; what it has lost is not.
            level = logging.INFO if first else logging.WARNING
            _logger.log(level, "mlflow-sysmetrics: Collector %s: %s.", self.name, "; ".join(_merged(new)))
        if self._recovered and self._log_budget.take(now):
            self._recovered = False
            state = "ok again" if self._health == OK else f"now {self._health}"
            _logger.info("mlflow-sysmetrics: Collector %s is %s.", self.name, state)
        self._is_settled = not (self._failures or self._recovered or self._gaps.is_pending)

    def _has_recovered(self) -> bool:
        """Returns whether a failure that was logged is over with this reading."""
        if not self._failures:
            return False
        self._successes += 1
        if self._successes < _SUCCESSES_THAT_COUNT:
            return False
        self._failures = 0
        logged = any(level == logging.WARNING for level, _ in self._logged)
        self._logged.clear()
        return logged


class ProbeSchedule:
    """Which probes are read at a tick, so that it need not ask each of them.

    Args:
        probes: all of them.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._all = self._awake = self._levels = probes
        self._resting: list[Probe] = []
        self._due_at = -math.inf
        self._files = probes[0].host.files if probes else KeptFiles()
        self._limits_version = self._rested_version = self._files.version

    def awake(self, now: float, *, whole: bool = True) -> Sequence[Probe]:
        """Returns those that are not paused, and for a while those that have failed since.

        Args:
            now: seconds of a clock that never goes back.
            whole: whether a point is due, or someone watches. Otherwise those are left out that can wait,
                unless limits of the job have changed: a share is of one limit.
        """
        version = self._files.version
        if now >= self._due_at or (version != self._rested_version and self._resting):
            self._rested_version = version
            resting = self._resting = [probe for probe in self._all if probe.rests(now)]
            self._awake = [probe for probe in self._all if probe not in resting]
            self._levels = [probe for probe in self._awake if not probe.can_wait]
            over_at = min((probe.paused_until for probe in resting), default=math.inf)
            self._due_at = min(over_at, now + _ASKED_AGAIN_SECONDS)
        if whole or version != self._limits_version:
            self._limits_version = version
            self._levels = [probe for probe in self._awake if not probe.can_wait]
            return self._awake
        return self._levels


def _health_after(error: BaseException) -> str:
    if isinstance(error, OSError | Malformed):  # of the source, whose collector keeps its state
        return f"unavailable: {why_unread(error)}"
    return f"failing: {type(error).__name__}: {error}"  # of this package: the name helps to report it


class _Gaps:
    """The gaps of a collector, and which of them have yet to be logged.

    Attributes:
        updated: whether there was a reading.
        health: summary of the last reading.
        new: gaps of the last reading that have not been logged, or not since they were last closed.
        last: the gaps of the last reading.
    """

    def __init__(self) -> None:
        self.updated = False
        self.health = OK
        self.new: list[str] = []
        self.last: tuple[str, ...] = ()
        self._logged: set[str] = set()
        self._away: dict[str, int] = {}

    @property
    def is_pending(self) -> bool:
        """Whether a gap is yet to be logged, or a logged one is closed but may open again."""
        return bool(self.new or self._away)

    def update(self, gaps: Sequence[str]) -> bool:
        """Takes the gaps of one reading and returns whether gaps that were logged are closed now."""
        self.updated = True
        if tuple(gaps) != self.last:
            self.last = tuple(gaps)
            self.health = f"{OK}, but {'; '.join(_merged(gaps))}" if gaps else OK
            self.new = [gap for gap in dict.fromkeys(gaps) if gap not in self._logged]
            self._away = {gap: self._away.get(gap, 0) for gap in self._logged.difference(gaps)}
        for gap in self._away:
            self._away[gap] += 1
        over = [gap for gap, readings in self._away.items() if readings >= _SUCCESSES_THAT_COUNT]
        for gap in over:
            del self._away[gap]
        self._logged.difference_update(over)
        return bool(over)

    def mark_logged(self) -> None:
        """Records that the new gaps were logged."""
        self._logged.update(self.new)
        self.new = []


class _LogBudget:
    """Bounds the log lines of a collector: 20 at once, then one per hour with all that was held back."""

    def __init__(self) -> None:
        self._left: float = _LINES_AT_ONCE
        self._at = math.inf

    def take(self, now: float) -> bool:
        """Returns whether one more line may be logged, and counts it."""
        self._left = min(self._left + max(now - self._at, 0) / _SECONDS_PER_LINE, _LINES_AT_ONCE)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _merged(gaps: Iterable[str]) -> list[str]:
    """Returns the gaps, merging the same gap of several devices: "gpu_0 to gpu_6 power: why"."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for gap in gaps:
        match = _NUMBERED.fullmatch(gap)
        if match:
            numbers.setdefault((match[1], match[3]), []).append(int(match[2]))
        else:
            numbers[gap, ""] = []
    return [f"{', '.join(_runs(start, of)) or start}{rest}" for (start, rest), of in numbers.items()]


def _runs(name: str, numbers: Sequence[int]) -> Iterator[str]:
    left = sorted(set(numbers))
    while left:
        length = next((place for place, one in enumerate(left) if one != left[0] + place), len(left))
        if length > 2:  # noqa: PLR2004 - two are listed
            yield f"{name}{left[0]} to {name}{left[length - 1]}"
        else:
            yield from (f"{name}{one}" for one in left[:length])
        left = left[length:]
