"""Our threads in the user's process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.native import (
    Event,
    is_own_thread,
    mark_own_thread,
    patched,
    start_new_thread,
)

# The kernel delivers these to the thread that caused them; blocking them would hide the fault.
_RAISED_BY_THE_THREAD = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}

# An import waits for ever if the waiting greenlet itself is importing what it needs. Once this one imports it
# too, Python notices the deadlock.
_BESIDE_SECONDS = 10.0


class Thread(Protocol):
    """A thread that was started.

    Attributes:
        name: its name.
    """

    name: str

    def is_alive(self) -> bool:
        """Returns whether it runs."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, at most `timeout` seconds."""


def start_thread(run: Callable[[], None], name: str) -> Thread:
    """Starts and returns a daemon thread that receives none of the process's signals.

    A program that blocks a signal in its own threads and waits for it with `signal.sigwait` does not know
    about ours. The kernel would deliver the signal here, and its default action would end the process.

    It is a thread of the operating system even if gevent or eventlet has turned `threading.Thread` into a
    greenlet of the main thread: there the blocked signals would be the program's own.

    Raises:
        ThreadUnavailable: the interpreter is shutting down, or the system's thread limit is reached.
    """

    def body() -> None:
        _block_signals()
        mark_own_thread(running=True)
        try:
            run()
        finally:
            by_greenlets = patched()
            if by_greenlets is not None:
                by_greenlets.close_loop()
            mark_own_thread(running=False)

    try:
        if patched() is not None:
            return _NativeThread(body, name)
        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
    except RuntimeError as error:  # "can't start new thread", and what sub-interpreters say
        from mlflow_sysmetrics.interruptions import reraise_interruption  # rarely needed

        reraise_interruption(error)
        raise ThreadUnavailable(f"no thread can be started: {error}") from error
    return thread


def run_beside(call: Callable[[], object]) -> bool:
    """Runs a call in a thread where threads are greenlets, so that the other greenlets run on.

    For what takes longer than a greenlet may run.

    Returns:
        Whether it was done. If not, because threads are threads, none can be started, or the call failed or
        takes very long, the caller does it itself.
    """
    if patched() is None or is_own_thread():
        return False
    done = Event()
    returned: list[object] = []

    def run() -> None:
        try:
            with contextlib.suppress(Exception):
                returned.append(call())
        finally:
            done.set()

    with contextlib.suppress(ThreadUnavailable):
        start_thread(run, "sysmetrics-beside")
        done.wait(_BESIDE_SECONDS)
    return bool(returned)


def greenlets_may_wait() -> AbstractContextManager[None]:
    """Returns what surrounds calls of libraries in a thread of ours.

    They share locks with the program, those of imports among them, for which its greenlets may have to wait.
    """
    by_greenlets = patched()
    return contextlib.nullcontext() if by_greenlets is None else by_greenlets.loops_kept_running()


def import_beside(name: str) -> None:
    """Imports a module of ours where threads are greenlets: in a thread, so that the others run on."""
    if not _is_imported(name):
        run_beside(lambda: import_module(name))


def _is_imported(name: str) -> bool:
    """Returns whether a module is there, and not just being imported: importing it would wait for that."""
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


class _NativeThread:
    """A thread where those of `threading` are greenlets. It is started by the constructor."""

    def __init__(self, body: Callable[[], None], name: str) -> None:
        self.name = name
        self._pid = os.getpid()
        self._ended = Event()
        self._body = body
        start_new_thread(self._run, ())

    def is_alive(self) -> bool:
        """Returns whether it runs; a forked child does not inherit it."""
        return not self._ended.is_set() and os.getpid() == self._pid

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, at most `timeout` seconds."""
        if self.is_alive():
            self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            threading.current_thread().name = self.name  # of the stand-in that `threading` makes for it
            self._body()
        finally:
            self._ended.set()


def _block_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        blocked = {
            one for one in signal.valid_signals() if getattr(one, "name", "") not in _RAISED_BY_THE_THREAD
        }
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
