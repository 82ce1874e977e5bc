"""Programs whose threads are greenlets: gevent or eventlet has patched `threading`. Imported only then."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

# A greenlet that waits for one of our threads looks again after these pauses, which grow from the first to
# the last: an event of a native thread cannot wake an event loop, and nothing is late by more than the last.
_FIRST_PAUSE_SECONDS = 0.0005
_LAST_PAUSE_SECONDS = 0.01
_GROWTH = 1.5

_monotonic = time.monotonic

_LONG_SECONDS = 86_400.0
# Event loops of gevent in which the program's greenlets have waited for us, each with the timer that keeps it
# running and the number of our threads that want it to. Only the loop's own thread touches the timer.
_loops: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def are_threads() -> bool:
    """Returns whether a thread of this program is a greenlet."""
    return _of_gevent() is not None or _of_eventlet() is not None


def original(name: str, module: str = "_thread") -> Any:
    """Returns what a name of a module meant before the program was patched."""
    gevent, eventlet = _of_gevent(), _of_eventlet()
    if gevent is not None:
        return gevent.get_original(module, name)
    if eventlet is not None:
        return getattr(eventlet.original(module), name)
    return getattr(import_module(module), name)


def poll(done: Callable[[], bool], timeout: float | None) -> bool:
    """Waits until `done` returns True, at most `timeout` seconds, while the other greenlets run.

    Where there are no others to run (a thread without an event loop, or the loop itself calls, as for a
    signal handler), the thread waits as usual.
    """
    ends = None if timeout is None else _monotonic() + timeout
    sleep = _sleep_of_greenlets() or original("sleep", "time")
    pause = _FIRST_PAUSE_SECONDS
    while not done():
        left = pause if ends is None else ends - _monotonic()
        if left <= 0:
            return False
        sleep(min(pause, left))
        pause = min(pause * _GROWTH, _LAST_PAUSE_SECONDS)
    return True


@contextlib.contextmanager
def loops_kept_running() -> Iterator[None]:
    """Lets the program's greenlets wait for locks that this thread of ours holds in a ``with`` block.

    Locks of Python and of libraries, above all those of imports, are gevent's. A greenlet that waits for one
    while its event loop has nothing else to wait for gets a `LoopExit`, "this operation would block forever":
    gevent does not know that another thread will release the lock.
    """
    kept = list(_loops.values())
    for one in kept:
        one.call(one.hold)
    try:
        yield
    finally:
        for one in kept:
            one.call(one.release)


class _Kept:
    """One event loop of the program.

    Args:
        hub: its hub.
    """

    def __init__(self, hub: Any) -> None:
        self._loop = hub.loop
        self._holders = 0
        self._timer: Any = None

    def call(self, function: Callable[[], None]) -> None:
        """Has the thread of the loop call a function, when it next waits."""
        with contextlib.suppress(Exception):  # the loop is destroyed
            self._loop.run_callback_threadsafe(function)

    def hold(self) -> None:
        self._holders += 1
        if self._timer is None:
            self._timer = self._loop.timer(_LONG_SECONDS)
            self._timer.start(lambda: None)

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self.forget()

    def forget(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()


def _forget_threads() -> None:
    """Lets the loops of a forked child end: the threads that kept them running do not exist there."""
    for one in _loops.values():
        one.forget()
    _loops.clear()


def close_loop() -> None:
    """Closes the event loop that requests or waits have started in this thread of ours, and its descriptors.

    A loop that is left behind refers to the greenlet of the dead thread. The greenlet library then searches
    the whole heap for references to that, in the program's main thread, for tens of milliseconds.
    """
    if _of_gevent() is not None:
        hub = _hub_of_gevent()
        if hub is not None:
            hub.destroy(destroy_loop=True)
        return
    hub = _hub_of_eventlet()
    if hub is not None:
        if hub.running:
            hub.abort(wait=True)
        hub.greenlet = None  # a cycle, which would wait for the garbage collector
        if hasattr(hub, "poll") and hasattr(hub.poll, "close"):  # of epoll and kqueue
            hub.poll.close()
        del hub, _eventlet_local().hub


def _of_gevent() -> Any:
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def _of_eventlet() -> Any:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher if patcher is not None and patcher.is_monkey_patched("thread") else None


def _sleep_of_greenlets() -> Callable[[float], object] | None:
    """Returns the `sleep` that runs other greenlets; None where it cannot be called."""
    if _of_gevent() is not None:
        import gevent

        hub = _hub_of_gevent()
        if hub is not None and hub not in _loops:
            _loops[hub] = _Kept(hub)
        is_possible = hub is not None and gevent.getcurrent() is not hub
        return gevent.sleep if is_possible else None
    import eventlet
    from greenlet import getcurrent

    hub = _hub_of_eventlet()
    return eventlet.sleep if hub is not None and getcurrent() is not hub.greenlet else None


def _hub_of_gevent() -> Any:
    from gevent._hub_local import get_hub_if_exists

    return get_hub_if_exists()


def _hub_of_eventlet() -> Any:
    return getattr(_eventlet_local(), "hub", None)  # get_hub() would start one


def _eventlet_local() -> Any:
    from eventlet import hubs

    return hubs._threadlocal  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)
