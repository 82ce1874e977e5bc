"""Whether the GPUs are still those that were found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors.rhythm import LIMITS_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable

Found = TypeVar("Found")


class RollCall(Generic[Found]):
    """Looks for the GPUs anew from time to time: one may be plugged in, taken out, or divided otherwise.

    Args:
        find: returns what is there, or raises `Unavailable`.

    Attributes:
        found: what was there at first.
    """

    def __init__(self, find: Callable[[], Found]) -> None:
        self._find = find
        self._pause = Pause(LIMITS_SECONDS)
        self.found = find()

    def check(self, now: float) -> None:
        """Looks, if it is time to.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            Unavailable: the GPUs are others now; a new collector finds them.
        """
        if self._pause.renew_if_over(now) and self._find() != self.found:
            raise Unavailable("the GPUs are others than before")
