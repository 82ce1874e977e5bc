"""How often, after which pause and until when a preflight retries a request; and the list of attempts."""

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

from mlflow_sysmetrics.errors import Attempt, SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

T = TypeVar("T")


def _unchanged(seconds: float) -> float:
    return seconds


@dataclass(frozen=True)
class RetrySchedule:
    """How often and how long to try, in seconds.

    Attributes:
        max_retries: attempts of one request, including the first.
        timeout: timeout of one attempt.
        backoff: the pauses after the first attempt, the second, and so on; the last one repeats.
        deadline: longest time for everything.
        monotonic: the clock.
        shortened: maps a pause to the one that is really taken, which tests shorten.

    Raises:
        SettingsError: a value is out of range.
    """

    max_retries: int = 5
    timeout: float = 30.0
    backoff: Sequence[float] = (10, 20, 30)
    deadline: float = 240.0
    monotonic: Callable[[], float] = time.monotonic
    shortened: Callable[[float], float] = _unchanged

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or self.max_retries < 1:
            raise SettingsError(f"max_retries must be an integer >= 1, got {self.max_retries!r}")
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise SettingsError(f"{name} must be a number of seconds > 0, got {value!r}")
        pauses = tuple(self.backoff) if isinstance(self.backoff, Iterable) else ()
        if not pauses or not all(
            isinstance(pause, int | float) and math.isfinite(pause) and pause >= 0 for pause in pauses
        ):
            raise SettingsError(
                f"backoff must be a list of at least one number of seconds >= 0, such as (10, 20, 30), "
                f"got {self.backoff!r}"
            )
        object.__setattr__(self, "backoff", pauses)


class Retries:
    """Sends one request after the other, retries each as the schedule allows, and lists the attempts.

    Args:
        schedule: how often and how long to try.
        status_code: returns the HTTP status of the last response.
        on_pause: called before each pause with the fault and the seconds.

    Attributes:
        step: the preflight's step that the next attempts belong to.
        made: every attempt, oldest first.
        count: attempts of the last request.
        gave_up: why the last request was not tried again, other than its number of attempts; else empty.
    """

    def __init__(
        self,
        schedule: RetrySchedule,
        status_code: Callable[[], int | None],
        on_pause: Callable[[Fault, float], None],
    ) -> None:
        self.schedule = schedule
        self.step = 0
        self.made: list[Attempt] = []
        self.count = 0
        self.gave_up = ""
        self._status_code = status_code
        self._on_pause = on_pause
        self._began = schedule.monotonic()

    def begin(self) -> None:
        """Starts the clock of the deadline: what is imported is imported."""
        self._began = self.schedule.monotonic()

    def leave_out(self, seconds: float) -> None:
        """Stops the clock of the deadline for a time that was not the server's and has just passed."""
        self._began += seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was started, without those left out."""
        return self.schedule.monotonic() - self._began

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(self.schedule.deadline - self.elapsed, 0.0)

    def call(self, request: Callable[[float], T], *, at_least: float = 0.0) -> T:
        """Returns the response to a request, which is called with its timeout in seconds.

        Args:
            request: raises `Fault` if it fails.
            at_least: a longer timeout than the schedule's for each attempt, as creating tables takes.

        Raises:
            Fault: the last attempt failed; this is its fault.
        """
        from stamina import retry_context

        self.count = 0
        self.gave_up = ""

        def pause_after(error: Exception) -> bool | float:
            if not isinstance(error, Fault) or not error.may_pass or self.count >= self.schedule.max_retries:
                return False
            pause = self._pause(error)
            if pause is None:
                return False
            self._on_pause(error, pause)
            return self.schedule.shortened(pause)

        with _without_log_lines_of_stamina():
            for attempt in retry_context(on=pause_after, attempts=self.schedule.max_retries, timeout=None):
                with attempt:
                    self.count += 1
                    return self._once(request, max(self.schedule.timeout, at_least))
        raise AssertionError("unreachable")

    def _once(self, request: Callable[[float], T], seconds: float) -> T:
        """Sends a request without retrying it, and lists the attempt."""
        n = 1 + sum(1 for one in self.made if one.step == self.step)
        at = datetime.now(timezone.utc)
        began = self.schedule.monotonic()
        error: str | None = None
        try:
            return request(min(seconds, self._time_left()))
        except Fault as fault:
            error = fault.reason
            raise
        except BaseException as interrupted:  # Ctrl-C or a bug of ours is listed like any other failure
            error = type(interrupted).__name__
            raise
        finally:
            took = self.schedule.monotonic() - began
            self.made.append(Attempt(n, self.step, at, took, self._status_code(), error))

    def _time_left(self) -> float:
        """Returns the seconds until the deadline; raises `Fault` if there are none."""
        if not self.remaining:
            raise Fault(f"the deadline of {self.schedule.deadline:g} s has passed", Cause.DOWN)
        return self.remaining

    def _pause(self, fault: Fault) -> float | None:
        """Returns the seconds to wait before the next attempt; None if that would exceed the deadline."""
        backoff = self.schedule.backoff
        pause = float(backoff[min(self.count, len(backoff)) - 1])
        if fault.retry_after is not None:
            pause = fault.retry_after
        if pause >= self.remaining:
            requested = f"the server asks for a pause of {pause:g} s, which"
            subject = requested if fault.retry_after is not None else f"the next pause of {pause:g} s"
            self.gave_up = f"{subject} would exceed the deadline of {self.schedule.deadline:g} s"
            return None
        return pause


@contextmanager
def _without_log_lines_of_stamina() -> Iterator[None]:
    """Drops "stamina.retry_scheduled" of this thread; our own log line says what is retried and why."""
    here = threading.get_ident()

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger = logging.getLogger("stamina")
    logger.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_of_another_thread)
