"""Whether the GPUs are still those that were found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors.rhythm import LIMITS_SECONDS, Pause
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

Found = TypeVar("Found")


class RollCall(Generic[Found]):
    """Looks for the GPUs anew from time to time: one may be plugged in, taken out, or divided otherwise.

    Args:
        host: the machine to look at; its environment is that of now for ever, since a GPU library that the
            program has started does not look at it again either.
        find: returns what is there, or raises `Unavailable`.

    Attributes:
        found: what was there at first.
    """

    def __init__(self, host: Host, find: Callable[[Host], Found]) -> None:
        host = replace(host, environ=dict(host.environ))
        self._find = partial(find, host)
        self._pause = Pause(LIMITS_SECONDS)
        self.found = self._find()

    def check(self, now: float) -> None:
        """Looks, if it is time to.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            Unavailable: the GPUs are others now; a new collector finds them.
        """
        if self._pause.renew_if_over(now) and self._find() != self.found:
            raise Unavailable("the GPUs are others than before")
