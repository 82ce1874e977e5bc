"""Loads the daemon in a thread, so that the first `start_run` of a process does not wait for its modules.

What is to be done with the daemon waits until it is loaded, and is then done in order, in that thread. Later
runs find it loaded and lose no time here.

A child that is forked while another thread imports a module finds that module locked for ever. So a fork
waits until the daemon is loaded, and so does the end of the interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable
from importlib import import_module

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, RLock, is_own_thread, patched

THREAD_NAME = "sysmetrics-start"

# By name, because that module imports this one.
_PROCESS = "mlflow_sysmetrics.daemon.process"
# Loading takes a fifth of a second, and two where nothing is compiled. A directory of modules on a filesystem
# that does not answer must not keep a program from going on.
_LONGEST_LOAD_SECONDS = 5.0

_Job = Callable[[], None]


class _Launch:
    """Loading of the daemon, which happens once per process."""

    def __init__(self) -> None:
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._jobs: deque[_Job] = deque()
        self._loop: Loop | None = None
        self._done = Event()

    @property
    def is_pending(self) -> bool:
        """Whether jobs wait for the daemon, or one is being done."""
        # A start that a signal handler has interrupted left a loop without a thread.
        return self._loop is not None and self._loop.is_alive and not self._done.is_set()

    def defer(self, job: _Job) -> bool:
        """Queues a job; returns False if the daemon is loaded, so that there is nothing to wait for."""
        with self._lock:
            if self._done.is_set() or (not self.is_pending and is_loaded()):
                return False
            self._jobs.append(job)
            loop = self._loop = self._loop or Loop(self._step, THREAD_NAME)
        try:
            if not loop.is_alive:
                loop.start()
        except ThreadUnavailable:
            with self._lock:
                self._jobs.remove(job)
            raise
        if patched() is not None:  # other greenlets run meanwhile, but must not import what a thread imports
            self._done.wait()
        return True

    def wait(self, seconds: float) -> bool:
        """Waits until all jobs are done; returns whether they are."""
        # What a log handler or a listener of the program does in our threads must not wait for them.
        return not self.is_pending or is_own_thread() or self._done.wait(seconds)

    def _step(self) -> bool:
        with contextlib.suppress(Exception):  # the first job imports it too, and says what is wrong
            import_module(_PROCESS)
        while True:
            with self._lock:
                if not self._jobs:
                    self._done.set()
                    return False
                job = self._jobs.popleft()
            job()


def defer(job: _Job) -> bool:
    """Has a job done by the thread that loads the daemon; returns False if the caller can do it at once.

    Args:
        job: raises nothing; it is done after all earlier ones.

    Raises:
        ThreadUnavailable: no thread can be started.
    """
    end_with_interpreter()
    return _launch.defer(job)


def call_in_loader(call: Callable[[], object]) -> None:
    """Calls in the thread that loads the daemon, for which a fork waits, if it is not loaded; else here.

    For a thread of ours, which waits for the end of the call.

    Raises:
        Exception: what the call raises.
    """
    if is_loaded() and not is_pending():
        call()
        return
    done = Event()
    raised: list[Exception] = []

    def job() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised again below
            raised.append(error)
        finally:
            done.set()

    if not defer(job):
        job()
    done.wait()
    if raised:
        raise raised[0]


def is_pending() -> bool:
    """Returns whether the daemon is being loaded, or a job that waited for it is being done."""
    return _launch.is_pending


def wait(seconds: float | None = None) -> bool:
    """Waits until the daemon is loaded and all jobs are done, if it is being loaded at all.

    Args:
        seconds: longest wait; None means five.

    Returns:
        Whether that is so.
    """
    return _launch.wait(_LONGEST_LOAD_SECONDS if seconds is None else seconds)


def end_with_interpreter() -> None:
    """Registers the end of the daemon with that of the interpreter. Safe to call again."""
    global _ends_with_interpreter  # noqa: PLW0603 - once per process
    if _ends_with_interpreter:
        return
    # Runs before MLflow's own exit function, which ends the active run and then has nothing to wait for.
    atexit.register(_end)
    # Children of multiprocessing exit without running exit functions, but they run its finalizers.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and multiprocessing.parent_process() is not None:
        util.Finalize(None, _end, exitpriority=0)
    _ends_with_interpreter = True  # last: a signal handler may raise before


def _end() -> None:
    # Not a bound method of the daemon: a forked child inherits the exit functions, but drops the daemon.
    wait()
    if is_loaded():
        sys.modules[_PROCESS].end()


def is_loaded() -> bool:
    """Returns whether the daemon's modules are imported, by whomever."""
    module = sys.modules.get(_PROCESS)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def _forget_parent() -> None:
    """Leaves a forked child with nothing to wait for: the thread is the parent's, and so are the jobs."""
    global _launch, _ends_with_interpreter  # noqa: PLW0603
    _launch = _Launch()
    _ends_with_interpreter = False


_launch = _Launch()
_ends_with_interpreter = False

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=wait, after_in_child=_forget_parent)
