"""Ways to ask for the same thing, of which drivers and devices of different age know different ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors.nvml.library import NvmlError, Verdict

Answer = TypeVar("Answer")


class FirstOf(Generic[Answer]):
    """Asks in the first way that is supported; once one was, it stays, so that a series has one source.

    Args:
        ways: what asks, the best first.
    """

    def __init__(self, *ways: Callable[..., Answer]) -> None:
        self._ways = ways

    def __call__(self, *arguments: object) -> Answer:
        """Returns the answer.

        Raises:
            NvmlError: no way is supported, or one failed that may be answered later.
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
