"""Calls to the tracking server whose failure does not stop a study."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

# A restarted server is back within a minute. MLflow's own retries take four minutes per request, and a trial
# makes a dozen requests.
_TIMEOUT_SECONDS = 60.0
# During an outage each call only checks whether the server is back.
_OUTAGE_TIMEOUT_SECONDS = 3.0
# How long the exit of the program waits for results that are being undone: a flush of 5 s and two requests.
_EXIT_SECONDS = 10.0

T = TypeVar("T")
_log = logging.getLogger("mlflow_sysmetrics")
_undoing: set[threading.Thread] = set()


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
        self._uri = tracking_uri
        self._lock = threading.Lock()
        self._silent = False
        self._warned = False

    @property
    def silent(self) -> bool:
        """True if the last call got no answer in time."""
        return self._silent

    def make(
        self,
        call: Callable[[], T],
        *,
        undo: Callable[[T], object] | None = None,
        in_this_thread: bool = False,
    ) -> T:
        """Returns what a call returns.

        Args:
            call: the call to make.
            undo: called with a result that arrives after the timeout. MLflow keeps retrying for minutes; by
                the time it creates something, the study has created it again.
            in_this_thread: makes the call in this thread, without a timeout.

        Raises:
            NotRecorded: the call raised or timed out.
        """
        pending = _UndoableCall(call, undo)
        seconds = _OUTAGE_TIMEOUT_SECONDS if self._silent else _TIMEOUT_SECONDS
        try:
            if in_this_thread:
                pending.run()
            else:
                bounded(pending.run, seconds, name="sysmetrics-store-call")
        except CallTimeout as timeout:
            if pending.abandon():
                self._silent = True
                self._warn(timeout, seconds)
                raise NotRecorded from None
            # The result arrived between the timeout and this line.
        except Exception as error:  # MLflow's, a store's or a plugin's: the study continues whatever it is
            self._warn(error, seconds)
            raise NotRecorded from error
        except BaseException:  # Ctrl-C
            pending.abandon()
            raise
        self._silent = False
        return pending.result

    def _warn(self, error: Exception, seconds: float) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            _log.warning(
                "mlflow-sysmetrics: the tracking server %s did not accept data of the study (%s). The study "
                "continues; what is missing is written when it ends.",
                redacted(self._uri),
                fault_of_error(error, self._uri, seconds=seconds).reason,
            )


class _UndoableCall(Generic[T]):
    """A call whose caller may stop waiting: its result is then undone, never lost.

    The lock decides which happens first, the result or the end of the waiting.
    """

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._results: list[T] = []

    @property
    def result(self) -> T:
        return self._results[0]

    def run(self) -> None:
        result = self._call()
        with self._lock:
            if not self._abandoned:
                self._results.append(result)
                return
        if self._undo is None:
            return
        _undoing.add(threading.current_thread())
        try:
            self._undo(result)
        finally:
            _undoing.discard(threading.current_thread())

    def abandon(self) -> bool:
        """Stops waiting and returns True; False if the result is already there."""
        with self._lock:
            self._abandoned = not self._results
            return self._abandoned


@atexit.register
def _wait_for_undos() -> None:
    """Lets undos finish: their threads end with the process, and a duplicate run would stay RUNNING."""
    deadline = time.monotonic() + _EXIT_SECONDS
    for thread in tuple(_undoing):
        thread.join(max(deadline - time.monotonic(), 0.0))
