"""One collector under guard.

The one wide guard of the package: whatever a collector does, the tick goes on and the other collectors with
it. A collector that fails is tried again with back-off, and never dropped for good.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from mlflow_sysmetrics.collectors import AnyCollector, Collector
from mlflow_sysmetrics.collectors.registry import name_of, resolve
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.backoff import doubled
from mlflow_sysmetrics.samples import Sample

OK = "ok"
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 300.0
# One that fails at every other reading has not recovered at each one between.
_SUCCESSES_THAT_COUNT = 10
# A clause may hold a number that is another one each time, and a device may come and go all day.
_LINES_AT_ONCE = 20
_SECONDS_PER_LINE = 3600.0
# "gpu_3 power: no permission": what is said of one of several alike.
_OF_ONE_OF_MANY = re.compile(r"([a-z]+_)(\d+)(\b.*)", re.DOTALL)

_logger = logging.getLogger("mlflow_sysmetrics")


class Probe:
    """Builds a collector when it is first needed, in the thread that reads it, and reads it.

    Args:
        collector: class of the collector, or its entry in the registry.
        host: the machine to look at.
        transparent: lets exceptions through, so that a test sees a collector that raises.
    """

    def __init__(self, collector: AnyCollector, host: Host, *, transparent: bool = False) -> None:
        self.name = name_of(collector)
        self.health = "not read yet"
        self._build = resolve(collector, host)
        self._host = host
        self._transparent = transparent
        self._collector: Collector | None = None
        self._failures = self._successes = 0
        self._told: set[tuple[int, type[BaseException]]] = set()
        self._gaps = _Gaps()
        self._lines = _Lines()
        self._recovered = False
        self._paused_until = -math.inf

    def read(self, now: float) -> Sequence[Sample]:
        """Returns the samples of one tick; none while the collector is unavailable, failing or paused.

        Args:
            now: seconds of a clock that never goes back.
        """
        if now < self._paused_until:
            return ()
        samples: list[Sample] = []
        try:
            if self._collector is None:
                self._collector = self._build(self._host)
            for sample in self._collector.collect(now):
                if math.isfinite(sample.value):
                    samples.append(sample)  # noqa: PERF401 - what came before a failure is kept
        except Unavailable as reason:
            self._collector = None
            self._pause(now, f"unavailable: {reason}", reason)
        except BaseException as error:
            if self._transparent:
                raise
            # Every other exception is a collector's own fault, SystemExit too: it must not end the sampling.
            self._pause(now, f"failing: {type(error).__name__}: {error}", error)
        else:
            self._succeed(now, self._collector.gaps)
        return samples

    def renew(self) -> None:
        """Has the collector built anew at the next reading."""
        self._collector = None

    def _pause(self, now: float, health: str, error: BaseException) -> None:
        pause = doubled(
            self._failures, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS
        )
        self._failures += 1
        self._successes = 0
        self._paused_until = now + pause
        self.health = health
        # An absent source is an ordinary answer; a failing one is news, once until it has recovered.
        level = logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING
        if (level, type(error)) in self._told or not (level == logging.DEBUG or self._lines.take(now)):
            return
        self._told.add((level, type(error)))
        _logger.log(
            level,
            "mlflow-sysmetrics: Collector %s is %s; trying again from time to time.",
            self.name,
            health,
        )

    def _succeed(self, now: float, gaps: Sequence[str]) -> None:
        first = not self._gaps.followed
        self._recovered |= self._gaps.follow(gaps) | self._has_recovered()
        self.health = self._gaps.health
        news = self._gaps.news
        if news and self._lines.take(now):
            self._gaps.tell()
            # What this machine never had is an ordinary answer; what was there and is not any more is none.
            level = logging.INFO if first else logging.WARNING
            _logger.log(level, "mlflow-sysmetrics: Collector %s: %s.", self.name, "; ".join(_merged(news)))
        if self._recovered and self._lines.take(now):
            self._recovered = False
            state = "ok again" if self.health == OK else f"now {self.health}"
            _logger.info("mlflow-sysmetrics: Collector %s is %s.", self.name, state)

    def _has_recovered(self) -> bool:
        """Tells whether a failure that was told is over with this reading."""
        if not self._failures:
            return False
        self._successes += 1
        if self._successes < _SUCCESSES_THAT_COUNT:
            return False
        self._failures = 0
        told = any(level == logging.WARNING for level, _ in self._told)
        self._told.clear()
        return told


class _Gaps:
    """What a collector lacks: which clauses are news, and which that were told are over.

    Attributes:
        followed: there was a reading.
        health: what they come to.
        news: those of the last reading that were not told, or not since they had been away for long.
    """

    def __init__(self) -> None:
        self.followed = False
        self.health = OK
        self.news: list[str] = []
        self._last: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._away: dict[str, int] = {}

    def follow(self, gaps: Sequence[str]) -> bool:
        """Takes the gaps of one reading, and tells whether some that were told are over with it."""
        self.followed = True
        if tuple(gaps) != self._last:
            self._last = tuple(gaps)
            self.health = f"{OK}, but {'; '.join(_merged(gaps))}" if gaps else OK
            self.news = [gap for gap in dict.fromkeys(gaps) if gap not in self._told]
            self._away = {gap: self._away.get(gap, 0) for gap in self._told.difference(gaps)}
        for gap in self._away:
            self._away[gap] += 1
        over = [gap for gap, readings in self._away.items() if readings >= _SUCCESSES_THAT_COUNT]
        for gap in over:
            del self._away[gap]
        self._told.difference_update(over)
        return bool(over)

    def tell(self) -> None:
        """Takes note that the news are told."""
        self._told.update(self.news)
        self.news = []


class _Lines:
    """How much may be logged: some lines at once, then one in an hour; what waits is told in the next."""

    def __init__(self) -> None:
        self._left: float = _LINES_AT_ONCE
        self._at = math.inf

    def take(self, now: float) -> bool:
        """Tells whether one more line may be logged, which then counts as such."""
        self._left = min(self._left + max(now - self._at, 0) / _SECONDS_PER_LINE, _LINES_AT_ONCE)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _merged(gaps: Iterable[str]) -> list[str]:
    """Returns the clauses, of those that say the same of several devices one: "gpu_0 to gpu_6 power: why"."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for gap in gaps:
        found = _OF_ONE_OF_MANY.fullmatch(gap)
        if found:
            numbers.setdefault((found[1], found[3]), []).append(int(found[2]))
        else:
            numbers[gap, ""] = []
    return [f"{', '.join(_runs(start, of)) or start}{rest}" for (start, rest), of in numbers.items()]


def _runs(name: str, numbers: Sequence[int]) -> Iterator[str]:
    left = sorted(set(numbers))
    while left:
        length = next((place for place, one in enumerate(left) if one != left[0] + place), len(left))
        if length > 2:  # noqa: PLR2004 - of two, both are named
            yield f"{name}{left[0]} to {name}{left[length - 1]}"
        else:
            yield from (f"{name}{one}" for one in left[:length])
        left = left[length:]
