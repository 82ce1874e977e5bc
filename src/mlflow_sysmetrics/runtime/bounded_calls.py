"""Calls that may hang: each runs in a thread, and the caller waits for it no longer than a given time.

Socket timeouts do not bound a silent name server, a plugin that fetches a token, or a database driver. A
thread that is left behind bounds all of them and keeps the caller responsive to Ctrl-C.

A reading that is polled again and again, and whose last value is still useful while the next one hangs, is
not a bounded call: see `background_reading`.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.runtime.threads import start_thread

T = TypeVar("T")


class CallTimeout(Exception):
    """The call did not return in time; its thread continues until it does."""


class PendingCall(Generic[T]):
    """A call that runs in a daemon thread, started by the constructor.

    Args:
        call: what to run; it sees the caller's context variables, where MLflow keeps its workspace.
        name: name of the thread.

    Raises:
        RuntimeError: no thread can be started, as during interpreter shutdown.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._context = contextvars.copy_context()
        self._done = threading.Event()
        self._returned: list[T] = []
        self._raised: BaseException | None = None
        start_thread(self._run, name)

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

    def _run(self) -> None:
        try:
            self._returned.append(self._context.run(self._call))
        except BaseException as error:  # raised in the thread that waits for the result
            self._raised = error
        finally:
            self._done.set()


def bounded(call: Callable[[], T], seconds: float, *, name: str = "sysmetrics-preflight") -> T:
    """Returns what a call returns, or raises what it raises, within a given time.

    Args:
        call: what to run.
        seconds: longest wait.
        name: name of the thread.

    Raises:
        CallTimeout: it has not returned by then.
        RuntimeError: no thread can be started.
    """
    return PendingCall(call, name).result(seconds)
