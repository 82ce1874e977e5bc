"""Whether something that a device did not answer is worth asking for again.

What is not supported or not permitted rests for ten minutes: a driver that is reloaded may bring it back, and
asking this seldom costs nothing. An answer that is of no use is asked for at the next tick. Other errors back
off from one second to five minutes.
"""

from __future__ import annotations

import math

from mlflow_sysmetrics.collectors.nvml.library import NvmlError, Verdict
from mlflow_sysmetrics.runtime.backoff import doubled

_UNSUPPORTED_SECONDS = 600.0
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 300.0


class Support:
    """The state of one reading of one device.

    Attributes:
        gap: why it is missing, as a short clause; "" while it is answered.
        verdict: what the last error said; None while it is answered.
    """

    __slots__ = ("_failures", "_rest", "_until", "gap", "verdict")

    def __init__(self) -> None:
        self.gap = ""
        self.verdict: Verdict | None = None
        self._failures = 0
        self._rest = 0.0
        self._until = -math.inf

    def due(self, now: float) -> bool:
        """Tells whether to ask."""
        left = self._until - now
        return left <= 0 or left > self._rest  # the latter: the clock was set back

    def refused(self, error: NvmlError, now: float) -> None:
        """Takes note of an error."""
        self.gap = str(error)
        self.verdict = error.verdict
        if error.verdict is Verdict.UNUSABLE:
            self._rest = 0.0
            self._failures = 0
        elif error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN):
            self._rest = _UNSUPPORTED_SECONDS
        else:
            self._rest = doubled(
                self._failures, first_seconds=_FIRST_SECONDS, longest_seconds=_LONGEST_SECONDS
            )
            self._failures += 1
        self._until = now + self._rest

    def answered(self) -> None:
        """Takes note of an answer."""
        self.gap = ""
        self.verdict = None
        self._failures = 0
        self._until = -math.inf

    def wake(self) -> None:
        """Asks again at once, because whoever is asked is another; an error goes on from where it was."""
        self._until = -math.inf
