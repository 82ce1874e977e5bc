"""One collector under guard.

The one wide guard of the package: whatever a collector does, the tick goes on and the other collectors with
it. A collector that fails is tried again with back-off, and never dropped for good.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from mlflow_sysmetrics.collectors import Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.samples import Sample

OK = "ok"
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 300.0
# A clause may hold a number that is another one each time.
_MOST_GAPS_TOLD = 50
# One that fails at every other reading has not recovered at each one between.
_SUCCESSES_THAT_COUNT = 10

_logger = logging.getLogger("mlflow_sysmetrics")


class Probe:
    """Builds a collector when it is first needed, in the thread that reads it, and reads it.

    Args:
        collector: class of the collector.
        host: the machine to look at.
        transparent: lets exceptions through, so that a test sees a collector that raises.
    """

    def __init__(self, collector: type[Collector], host: Host, *, transparent: bool = False) -> None:
        self.name = collector.__name__
        self.health = "not read yet"
        self._class = collector
        self._host = host
        self._transparent = transparent
        self._collector: Collector | None = None
        self._failures = self._successes = 0
        self._told: set[tuple[int, type[BaseException]]] = set()
        self._told_gaps: set[str] = set()
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
                self._collector = self._class(self._host)
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
            self._succeed()
        return samples

    def renew(self) -> None:
        """Has the collector built anew at the next reading."""
        self._collector = None

    def _pause(self, now: float, health: str, error: BaseException) -> None:
        pause = min(_FIRST_PAUSE_SECONDS * 2**self._failures, _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 16)  # 2**16 s is far over the longest pause
        self._successes = 0
        self._paused_until = now + pause
        self.health = health
        # An absent source is an ordinary answer; a failing one is news, once until it has recovered.
        level = logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING
        if (level, type(error)) not in self._told:
            self._told.add((level, type(error)))
            _logger.log(
                level,
                "mlflow-sysmetrics: Collector %s is %s; trying again from time to time.",
                self.name,
                health,
            )

    def _tell_gaps(self, gaps: Sequence[str]) -> None:
        """Logs what has come to be missing: each clause once, whatever comes and goes at every tick."""
        for gap in gaps:
            if gap not in self._told_gaps and len(self._told_gaps) < _MOST_GAPS_TOLD:
                self._told_gaps.add(gap)
                _logger.info("mlflow-sysmetrics: Collector %s: %s.", self.name, gap)

    def _succeed(self) -> None:
        gaps = () if self._collector is None else self._collector.gaps
        health = f"{OK}, but {'; '.join(gaps)}" if gaps else OK
        if health != self.health:
            self.health = health
            self._tell_gaps(gaps)
        if self._failures:
            self._successes += 1
            if self._successes >= _SUCCESSES_THAT_COUNT:
                self._failures = 0
                if any(level == logging.WARNING for level, _ in self._told):
                    _logger.info("mlflow-sysmetrics: Collector %s is ok again.", self.name)
                self._told.clear()
