"""A call that somebody waits for only so long."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from mlflow_sysmetrics.runtime.threads import start_thread

# FOLDED bounded_writes: Writes that may hang, made beside the program that asks for them.

# An object store on the other side of the world takes a second or two, and its library's first retry fits in.
# Libraries go on for minutes where the store is gone; a program that only wants to say so does not.
PATIENCE_SECONDS = 10.0
# A write that follows one that has not ended is most likely in vain too.
GLANCE_SECONDS = 1.0


class BoundedWrites:
    """Writes named texts one after the other in a thread, and waits for it only so long.

    A text that has not been taken up when the next of its name comes is left out: the newest one counts. The
    thread lives as long as there is something to write, and dies with the process.

    Args:
        write: writes a text under a name; may take for ever.
        patience_seconds: longest wait for a write.
        glance_seconds: longest wait while an earlier write has not ended.
    """

    def __init__(
        self,
        write: Callable[[str, str], None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        glance_seconds: float = GLANCE_SECONDS,
    ) -> None:
        self._write = write
        self._patience_seconds = patience_seconds
        self._glance_seconds = glance_seconds
        self._lock = threading.Lock()  # never held over a write
        self._newest: dict[str, str] = {}
        self._idle = threading.Event()
        self._idle.set()
        self._failure: BaseException | None = None

    def write(self, name: str, text: str, *, last: bool = False) -> None:
        """Has a text written, and returns when it is.

        Args:
            name: what it is written under.
            text: what is written.
            last: the program ends after this one, so it is waited for with all patience.

        Raises:
            TimeoutError: it has not been written in time; the thread goes on trying.
            RuntimeError: the interpreter is shutting down.
            Exception: what the writing raised.
        """
        with self._lock:
            self._newest[name] = text
            idle = self._idle.is_set()
            self._idle.clear()
        if idle:
            context = contextvars.copy_context()  # MLflow keeps its workspace there
            try:
                start_thread(lambda: context.run(self._run), "sysmetrics-status-files")
            except RuntimeError:
                self._idle.set()
                raise
        seconds = self._patience_seconds if idle or last else self._glance_seconds
        if not self._idle.wait(seconds):
            raise TimeoutError(f"it has not been taken within {seconds:g} s")
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._newest:
                    self._idle.set()
                    return
                name, text = self._newest.popitem()
            failure: BaseException | None = None
            try:
                self._write(name, text)
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for; the store's library's
                failure = error
            self._failure = failure


T = TypeVar("T")


class CallTimeout(Exception):
    """The call has not returned in time; its thread goes on until it does."""


def bounded(call: Callable[[], T], seconds: float, *, name: str = "sysmetrics-preflight") -> T:
    """Returns what a call returns, or raises what it raises, if it does so in time.

    Timeouts of sockets do not bound a name server that is silent, a plugin that fetches a token, or a
    database driver; a thread that is left behind bounds them all, and leaves the caller open to Ctrl-C.

    Args:
        call: what is called.
        seconds: longest time.
        name: of the thread.

    Raises:
        CallTimeout: it did not.
    """
    returned: list[T] = []
    raised: list[BaseException] = []
    done = threading.Event()
    context = contextvars.copy_context()  # MLflow keeps its workspace there

    def run() -> None:
        try:
            returned.append(context.run(call))
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            raised.append(error)
        finally:
            done.set()

    start_thread(run, name)
    if not done.wait(max(seconds, 0.0)):
        raise CallTimeout
    if raised:
        raise raised[0]
    return returned[0]
