"""Locks and events of the operating system, whatever the program has replaced in `threading`.

gevent and eventlet replace locks and threads with greenlets of one thread, before or after this package is
imported. Our threads stay threads, so what they share with the program must be native as well: a greenlet
lock that a native thread releases wakes nobody, or the wrong event loop.

Three rules follow:

- A lock is held for bookkeeping only. Code under it must not switch to another greenlet: no import, no log
  message, no I/O, no wait. Another greenlet of the same thread would then wait for the lock for ever.
- The program's threads wait on an `Event`, which lets other greenlets run.
- An exception may arrive at any point in the program's thread (a signal handler raises). `with` calls the
  C functions of a lock directly, because between the lines of a Python function the lock could stay locked.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections import deque
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol


class NativeLock(Protocol):
    """A lock that is not re-entrant."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:  # noqa: FBT001 - as in _thread
        """Takes the lock; returns whether it did."""

    def release(self) -> None:
        """Releases the lock."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


def patched() -> ModuleType | None:
    """Returns our module for greenlets where `threading` is patched; None elsewhere, at once."""
    if "gevent.monkey" not in sys.modules and "eventlet.patcher" not in sys.modules:
        return None
    from mlflow_sysmetrics.runtime import greenlets

    return greenlets if greenlets.are_threads() else None


def _original(name: str) -> Any:
    by_greenlets = patched()
    return getattr(_thread, name) if by_greenlets is None else by_greenlets.original(name)


_allocate_lock: Callable[[], NativeLock] = _original("allocate_lock")
get_ident: Callable[[], int] = _original("get_ident")  #: identifies the thread, not the greenlet
_new_rlock: Callable[[], Any] = _original("RLock")
start_new_thread: Callable[[Callable[[], None], tuple[()]], int] = _original("start_new_thread")

TIMEOUT_MAX = _thread.TIMEOUT_MAX  #: longest wait, in seconds

_own_threads: set[int] = set()  # identities of the running threads of this package


def mark_own_thread(*, running: bool) -> None:
    """Records that the current thread is one of this package's, and when it ends."""
    if running:
        _own_threads.add(get_ident())
    else:
        _own_threads.discard(get_ident())


def is_own_thread() -> bool:
    """Returns whether the current thread is one of this package's."""
    return get_ident() in _own_threads


Lock: Callable[[], NativeLock] = _allocate_lock


class RLock:
    """A re-entrant lock: a signal handler may call in.

    Its slots hide the C lock from eventlet, which replaces those that it finds in attributes.
    """

    __slots__ = ("__enter__", "__exit__", "_lock")

    def __init__(self) -> None:
        self._lock = lock = _new_rlock()
        # A slot is found where `with` looks for a method: on the class.
        object.__setattr__(self, "__enter__", lock.__enter__)
        object.__setattr__(self, "__exit__", lock.__exit__)

    if TYPE_CHECKING:

        def __enter__(self) -> bool: ...

        def __exit__(self, *error: object) -> None: ...


class Event:
    """A flag that threads and greenlets wait for.

    `set` takes no lock, so a signal handler that interrupts it may call it again.
    """

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: deque[NativeLock] = deque()

    def is_set(self) -> bool:
        """Returns whether the flag is set."""
        return self._is_set

    def set(self) -> None:
        """Sets the flag and wakes all that wait."""
        self._is_set = True
        for waiting in self._waiting.copy():
            try:
                waiting.release()
            except RuntimeError:  # another thread has just released it
                continue

    def clear(self) -> None:
        """Resets the flag."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the flag, at most `timeout` seconds; returns whether it is set.

        In a greenlet the other greenlets run meanwhile.
        """
        if self._is_set:
            return True
        waiting = _allocate_lock()
        waiting.acquire()
        self._waiting.append(waiting)
        try:
            if not self._is_set:
                _acquire(waiting, timeout)
        finally:
            self._waiting.remove(waiting)
        return self._is_set


class Condition(RLock):
    """A re-entrant lock, and the news that what it guards has changed."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        super().__init__()
        self._news: list[Event] = []

    def notify_all(self) -> None:
        """Wakes all that wait. The caller holds the lock."""
        for event in self._news:
            event.set()
        self._news = []  # last: if a signal handler raises before, the next call wakes them

    def next_change(self) -> Event:
        """Returns an event that the next `notify_all` sets, to wait for without the lock."""
        event = Event()
        self._news.append(event)
        return event

    def wait(self, timeout: float | None = None) -> bool:
        """Releases the lock, waits for `notify_all`, and takes the lock again. For our own threads."""
        event = self.next_change()
        held = self._lock._release_save()  # noqa: SLF001 - as threading.Condition does
        try:
            return event.wait(timeout)
        finally:
            self._lock._acquire_restore(held)  # noqa: SLF001


def _acquire(lock: NativeLock, timeout: float | None) -> None:
    """Waits for a lock to be released: our threads natively, greenlets by asking again and again."""
    by_greenlets = None if is_own_thread() else patched()
    if by_greenlets is not None:
        by_greenlets.poll(lambda: bool(lock.acquire(False)), timeout)  # noqa: FBT003 - a C function
    elif timeout is None:
        lock.acquire()
    else:
        lock.acquire(True, min(max(timeout, 0.0), TIMEOUT_MAX))  # noqa: FBT003


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_own_threads.clear)
