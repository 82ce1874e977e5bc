"""Calls that may hang: each runs in a thread, and the caller waits for it no longer than a given time.

Socket timeouts do not bound a silent name server, a plugin that fetches a token, or a database driver. A
thread that is left behind bounds all of them and keeps the caller responsive to Ctrl-C.

A reading that is polled again and again, and whose last value is still useful while the next one hangs, is
not a bounded call: see `background_reading`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.runtime.native import Event, Lock
from mlflow_sysmetrics.runtime.threads import start_thread

T = TypeVar("T")


class CallTimeout(Exception):
    """The call did not return in time; its thread continues until it does."""


class PendingCall(Generic[T]):
    """A call that runs in a daemon thread, started by the constructor.

    Args:
        call: what to run; it sees the caller's context variables, where MLflow keeps its workspace.
        name: name of the thread.
        late: called in that thread with a result that arrives after `abandon`.

    Raises:
        ThreadUnavailable: no thread can be started.
    """

    def __init__(self, call: Callable[[], T], name: str, late: Callable[[T], object] | None = None) -> None:
        self._call = call
        self._late = late
        self._lock = Lock()  # decides which comes first, the result or the end of the waiting
        self._abandoned = False
        self._context = contextvars.copy_context()
        self._done = Event()
        self._returned: list[T] = []
        self._raised: BaseException | None = None
        start_thread(self._run, name)

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done.is_set()

    def result(self, seconds: float) -> T:
        """Waits and returns what the call returns, or raises what it raises.

        Args:
            seconds: longest wait.

        Raises:
            CallTimeout: it has not returned by then.
        """
        if not self._done.wait(max(seconds, 0.0)):
            raise CallTimeout
        if self._raised is not None:
            raise self._raised
        return self._returned[0]

    def abandon(self) -> bool:
        """Ends the waiting and returns True; False if the call has returned or raised already."""
        with self._lock:
            self._abandoned = not self._returned and self._raised is None
            return self._abandoned

    def _run(self) -> None:
        try:
            returned = self._context.run(self._call)
            with self._lock:
                if not self._abandoned:
                    self._returned.append(returned)
                    return
            if self._late is not None:
                self._context.run(self._late, returned)
        except BaseException as error:  # raised in the thread that waits for the result
            self._raised = error
        finally:
            self._done.set()


def bounded(
    call: Callable[[], T],
    seconds: float,
    *,
    name: str = "sysmetrics-preflight",
    late: Callable[[T], object] | None = None,
) -> T:
    """Returns what a call returns, or raises what it raises, within a given time.

    Args:
        call: what to run.
        seconds: longest wait.
        name: name of the thread.
        late: called in that thread with a result that arrives when this function has raised: a timeout, or
            Ctrl-C. A result is either returned or passed to `late`, never both.

    Raises:
        CallTimeout: it has not returned by then.
        ThreadUnavailable: no thread can be started.
    """
    pending = PendingCall(call, name, late)
    try:
        return pending.result(seconds)
    except CallTimeout:
        if pending.abandon():
            raise
        return pending.result(seconds)  # it arrived between the timeout and this line
    except BaseException:  # also Ctrl-C
        pending.abandon()
        raise
