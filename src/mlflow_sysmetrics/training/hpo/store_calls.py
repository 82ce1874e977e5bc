"""Calls to the tracking server whose failure does not stop a study."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.backoff import asked_for, doubled
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

# A restarted server is back within a minute. MLflow's own retries take four minutes per request, and a trial
# makes a dozen requests.
_TIMEOUT_SECONDS = 60.0
# During an outage each call only checks whether the server is back.
_OUTAGE_TIMEOUT_SECONDS = 3.0
# Between two attempts to create something, unless the server asks for longer. A server that restarts refuses
# the connection at once.
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

T = TypeVar("T")
_log = logging.getLogger("mlflow_sysmetrics")


class NotRecorded(Exception):
    """The tracking server did not accept a write, or did not answer in time."""


class StoreCalls:
    """Makes calls to one tracking server with a timeout, and warns once if they fail.

    The result of a trial matters more than its run: what cannot be written now is written when the study ends
    or is resumed.

    Args:
        tracking_uri: the server, for messages.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._lock = threading.Lock()
        self._silent = False
        self._warned = False

    @property
    def silent(self) -> bool:
        """True if the last call got no answer in time."""
        return self._silent

    def make(self, call: Callable[[], T]) -> T:
        """Returns what a call returns.

        MLflow repeats a request for minutes, so a call that was given up may succeed later: it must be a
        reading, or a write that changes nothing whenever it arrives. Others are for `write` and `create`.

        Raises:
            NotRecorded: the call raised or timed out.
        """
        seconds = self._seconds()
        return self._within(call, seconds, seconds)

    def write(self, attempt: Callable[[float], object]) -> None:
        """Writes something whose repetition changes nothing, with as many attempts as the time allows.

        When this method returns or raises, no attempt is repeated any more. So nothing that was given up
        arrives after what is written later.

        Args:
            attempt: makes one attempt within the given seconds; raises `Fault` if it failed.

        Raises:
            NotRecorded: the server did not accept it in time.
        """
        self._repeat(attempt, lambda _seconds: None)

    def create(self, attempt: Callable[[float], T], found: Callable[[], T | None]) -> T:
        """Returns what one of several attempts has created.

        An attempt whose answer was lost may have succeeded, so each further one looks for its result first.
        When this method raises, no attempt is repeated any more.

        Args:
            attempt: makes one attempt within the given seconds; raises `Fault` if it failed.
            found: returns what an earlier attempt has created; None if there is nothing.

        Raises:
            NotRecorded: the server refused, or nothing was created in time.
        """
        total = self._seconds()
        return self._repeat(attempt, lambda seconds: self._within(found, seconds, total))

    def _repeat(self, attempt: Callable[[float], T], found: Callable[[float], T | None]) -> T:
        seconds = self._seconds()
        deadline = time.monotonic() + seconds
        failures = 0
        while True:
            try:
                created = attempt(max(deadline - time.monotonic(), 0.0))
            except Fault as fault:
                pause = self._pause(failures, fault)
                if not fault.may_pass or time.monotonic() + pause >= deadline:
                    self._silent = fault.may_pass
                    self._warn(fault, seconds)
                    raise NotRecorded from fault
            else:
                self._silent = False
                return created
            failures += 1
            time.sleep(pause)
            existing = found(deadline - time.monotonic())
            if existing is not None:
                return existing

    def _seconds(self) -> float:
        return _OUTAGE_TIMEOUT_SECONDS if self._silent else _TIMEOUT_SECONDS

    def _pause(self, failures: int, fault: Fault) -> float:
        pause = doubled(failures, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS)
        return max(pause, asked_for(fault))

    def _within(self, call: Callable[[], T], left: float, seconds: float) -> T:
        """Returns what a call returns.

        Args:
            call: the call to make.
            left: longest wait.
            seconds: how long everything has lasted after that wait, for the message.
        """
        try:
            result = bounded(call, left, name="sysmetrics-store-call")
        except CallTimeout as timeout:
            self._silent = True
            self._warn(timeout, seconds)
            raise NotRecorded from None
        except Exception as error:  # MLflow's, a store's or a plugin's: the study continues whatever it is
            reraise_interruption(error)
            self._warn(error, seconds)
            raise NotRecorded from error
        self._silent = False
        return result

    def _warn(self, error: Exception, seconds: float) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            _log.warning(
                "mlflow-sysmetrics: the tracking server %s did not accept data of the study (%s). The study "
                "continues; what is missing is written when it ends.",
                redacted(self.tracking_uri),
                fault_of_error(error, self.tracking_uri, seconds=seconds).reason,
            )
