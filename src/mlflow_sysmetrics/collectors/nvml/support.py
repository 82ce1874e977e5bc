"""What a device supports: which of several NVML calls works, and when to retry one that failed.

A call that is unsupported or not permitted is retried every ten minutes: a reloaded driver may support it,
and so rare a call costs nothing. After an unusable answer the call is repeated at the next tick. Other errors
back off from one second to five minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors.nvml.library import NvmlError, Verdict
from mlflow_sysmetrics.runtime.backoff import doubled

Answer = TypeVar("Answer")


class FirstOf(Generic[Answer]):
    """Alternatives for one reading, since drivers and devices of different age support different calls.

    The first supported one is kept, so that a series has one source.

    Args:
        ways: the calls, best first.
    """

    def __init__(self, *ways: Callable[..., Answer]) -> None:
        self._ways = ways

    def __call__(self, *arguments: object) -> Answer:
        """Returns the answer.

        Raises:
            NvmlError: no alternative is supported, or one failed that may succeed later.
        """
        *better, last = self._ways
        for way in better:
            try:
                answer = way(*arguments)
            except NvmlError as error:
                if error.verdict is not Verdict.UNSUPPORTED:
                    raise
            else:
                self._ways = (way,)
                return answer
        answer = last(*arguments)
        self._ways = (last,)
        return answer


_UNSUPPORTED_SECONDS = 600.0
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 300.0


class Support:
    """The state of one reading of one device.

    Attributes:
        gap: why it is missing, as a short clause; "" while it succeeds.
        verdict: what the last error meant; None while it succeeds.
    """

    __slots__ = ("_failures", "_rest", "_until", "gap", "verdict")

    def __init__(self) -> None:
        self.gap = ""
        self.verdict: Verdict | None = None
        self._failures = 0
        self._rest = 0.0
        self._until = -math.inf

    def due(self, now: float) -> bool:
        """True if it is time to ask."""
        left = self._until - now
        return left <= 0 or left > self._rest  # left > rest: the clock was set back

    def refused(self, error: NvmlError, now: float) -> None:
        """Records an error."""
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
        """Records an answer."""
        self.gap = ""
        self.verdict = None
        self._failures = 0
        self._until = -math.inf

    def wake(self) -> None:
        """Makes the next attempt due at once, since the device was found again; back-off is not reset."""
        self._until = -math.inf
