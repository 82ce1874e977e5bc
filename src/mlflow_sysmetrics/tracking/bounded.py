"""A call that somebody waits for only so long."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from mlflow_sysmetrics.thread import start_thread

T = TypeVar("T")


class TookTooLong(Exception):  # noqa: N818 - what happened, not whose fault it is
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
        TookTooLong: it did not.
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
        raise TookTooLong
    if raised:
        raise raised[0]
    return returned[0]
