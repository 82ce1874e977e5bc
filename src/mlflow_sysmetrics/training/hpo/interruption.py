"""Ctrl-C for objective functions that run in threads.

Python raises KeyboardInterrupt in the main thread only. An objective function that runs in another would be
waited for until it is done, which may be hours. So it is raised there too, between two steps of Python as
in the main thread; what is in a call of C (a kernel, `time.sleep`) first comes to its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class Interruption:
    """Knows the threads in which objective functions are running, and interrupts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._called = False

    @property
    def called(self) -> bool:
        """Whether the objective functions were interrupted."""
        return self._called

    @contextlib.contextmanager
    def reaches(self) -> Iterator[None]:
        """Lets this thread be interrupted within a ``with`` block, and not behind it.

        Raises:
            KeyboardInterrupt: at any point of the block.
        """
        own = threading.get_ident()
        with self._lock:
            if self._called:
                raise KeyboardInterrupt
            self._inside.add(own)
        try:
            yield
        finally:
            with self._lock:
                self._inside.discard(own)
                _raise_in(own, None)  # one that was on its way would come in the middle of ending the run

    def call(self) -> None:
        """Raises KeyboardInterrupt in every thread that is inside, and in those that come."""
        with self._lock:
            self._called = True
            for thread in self._inside:
                _raise_in(thread, KeyboardInterrupt)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raise_in = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)
    if raise_in is not None:  # not PyPy: there Ctrl-C waits until the trials are done
        raise_in(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))
