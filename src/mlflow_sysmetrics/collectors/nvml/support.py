"""What a device supports: which of several NVML calls works, and when to retry one that failed.

A call that is unsupported or not permitted is retried every ten minutes: a reloaded driver may support it,
and so rare a call costs nothing. After an unusable answer the call is repeated at the next tick. Other errors
back off from one second to five minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors.nvml.library import NvmlError, Verdict
from mlflow_sysmetrics.runtime.backoff import doubled

Answer = TypeVar("Answer")


# Errors of which the next reading may be free come first: they decide when to ask again.
_SOONEST = (Verdict.TROUBLE, Verdict.UNUSABLE, Verdict.FORBIDDEN, Verdict.UNSUPPORTED)
_FAILURES_TO_CHANGE = 3


class FirstOf(Generic[Answer]):
    """Alternatives for one reading, since drivers and devices of different age support different calls.

    Each is tried whatever the error of those before it, unless the device is gone: under WSL 2 a newer
    version of a call answers "Unknown Error" for ever where the older one works (XuehaiPan/nvitop#30). The
    first that answers is kept, so that a series has one source; one that may answer again is kept until it
    has failed three times in a row.

    Args:
        ways: the calls, best first.
    """

    def __init__(self, *ways: Callable[..., Answer]) -> None:
        self._ways = ways
        self._failures = 0

    def __call__(self, *arguments: object) -> Answer:
        """Returns the answer.

        Raises:
            NvmlError: no alternative answers, or the device is gone.
        """
        errors: list[tuple[str, Verdict, int]] = []  # not the errors, which would keep their frames alive
        for way in self._ways:
            try:
                answer = way(*arguments)
            except NvmlError as error:
                if error.verdict is Verdict.LOST:
                    raise
                errors.append((str(error), error.verdict, error.code))
            else:
                if errors or self._failures:
                    self._change(way, [verdict for _, verdict, _ in errors])
                return answer
        raise NvmlError(*min(errors, key=lambda error: _SOONEST.index(error[1])))

    def _change(self, way: Callable[..., Answer], errors: Sequence[Verdict]) -> None:
        """Puts the call that answered first, once those before it will not answer again."""
        self._failures = self._failures + 1 if errors else 0
        final = all(verdict is Verdict.UNSUPPORTED for verdict in errors)
        if errors and (final or self._failures >= _FAILURES_TO_CHANGE):
            self._failures = 0
            self._ways = (way, *(other for other in self._ways if other is not way))


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
