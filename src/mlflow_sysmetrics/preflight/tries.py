"""Trying again: how often, after which wait, until when; and the list of what was tried."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeVar

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.preflight.attempts import Attempt

T = TypeVar("T")


def _as_it_is(seconds: float) -> float:
    return seconds


@dataclass(frozen=True)
class Pace:
    """How long to try, in seconds.

    Attributes:
        max_retries: tries of one question, the first included.
        timeout: for one try.
        backoff: the waits after the first try, the second, and so on; the last one goes on.
        deadline: for everything.
        monotonic: the clock.
        shortened: what a wait becomes when it is taken; tests shorten it.
    """

    max_retries: int = 5
    timeout: float = 30.0
    backoff: Sequence[float] = (10, 20, 30)
    deadline: float = 240.0
    monotonic: Callable[[], float] = time.monotonic
    shortened: Callable[[float], float] = _as_it_is

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or self.max_retries < 1:
            raise SettingsError(
                f"max_retries is {self.max_retries!r}; it must be a whole number of 1 or more"
            )
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise SettingsError(f"{name} is {value!r}; it must be a number of seconds above 0")
        waits = tuple(self.backoff) if isinstance(self.backoff, Iterable) else ()
        if not waits or not all(
            isinstance(wait, int | float) and math.isfinite(wait) and wait >= 0 for wait in waits
        ):
            raise SettingsError(
                f"backoff is {self.backoff!r}; it must be a list of at least one wait of 0 s or more, "
                "such as (10, 20, 30)"
            )
        object.__setattr__(self, "backoff", waits)


class Tries:
    """Asks one question after the other, each as often as the pace allows, and keeps the list.

    Args:
        pace: how long to try.
        status_code: tells the HTTP status of the last answer.
        on_wait: is called before each wait with the fault and the seconds.
    """

    def __init__(
        self, pace: Pace, status_code: Callable[[], int | None], on_wait: Callable[[Fault, float], None]
    ) -> None:
        self.pace = pace
        self.step = 0
        self.made: list[Attempt] = []
        self.asked = 0  #: tries of the last question
        self.gave_up = ""  #: why there was no further try, if not for their number
        self._status_code = status_code
        self._on_wait = on_wait
        self._began = pace.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the first moment."""
        return self.pace.monotonic() - self._began

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(self.pace.deadline - self.elapsed, 0.0)

    def ask(self, question: Callable[[float], T], *, at_least: float = 0.0) -> T:
        """Returns the answer to a question that takes the seconds it has.

        Args:
            question: raises `Fault` where there is no answer.
            at_least: seconds for one try even where the timeout is shorter, as making tables takes.

        Raises:
            Fault: the last one.
        """
        from stamina import retry_context

        self.asked = 0
        self.gave_up = ""

        def wait_after(error: Exception) -> bool | float:
            if not isinstance(error, Fault) or not error.may_pass or self.asked >= self.pace.max_retries:
                return False
            wait = self._wait(error)
            if wait is None:
                return False
            self._on_wait(error, wait)
            return self.pace.shortened(wait)

        with _without_lines_of_stamina():
            for attempt in retry_context(on=wait_after, attempts=self.pace.max_retries, timeout=None):
                with attempt:
                    self.asked += 1
                    return self._once(question, max(self.pace.timeout, at_least))
        raise AssertionError("unreachable")

    def _once(self, question: Callable[[float], T], seconds: float) -> T:
        """Asks without trying again, and lists the try."""
        n = 1 + sum(1 for one in self.made if one.step == self.step)
        at = datetime.now(timezone.utc)
        began = self.pace.monotonic()
        error: str | None = None
        try:
            return question(min(seconds, self.remaining))
        except Fault as fault:
            error = fault.reason
            raise
        except BaseException as interrupted:  # Ctrl-C or a fault of ours: a try like the others in the list
            error = type(interrupted).__name__
            raise
        finally:
            took = self.pace.monotonic() - began
            self.made.append(Attempt(n, self.step, at, took, self._status_code(), error))

    def _wait(self, fault: Fault) -> float | None:
        """Returns the seconds to wait before the next try; None where the deadline comes first."""
        backoff = self.pace.backoff
        wait = float(backoff[min(self.asked, len(backoff)) - 1])
        if fault.retry_after is not None:
            wait = fault.retry_after
        if wait >= self.remaining:
            asked_for = (
                "the server asks for a wait of" if fault.retry_after is not None else "the next wait is"
            )
            self.gave_up = f"{asked_for} {wait:g} s, and the deadline of {self.pace.deadline:g} s comes first"
            return None
        return wait


@contextmanager
def _without_lines_of_stamina() -> Iterator[None]:
    """Keeps "stamina.retry_scheduled" of this thread out of the log; our own line says what and why."""
    here = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger = logging.getLogger("stamina")
    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
