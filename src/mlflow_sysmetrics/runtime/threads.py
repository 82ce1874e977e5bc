"""Threads of ours in somebody else's process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

# What a fault in a thread raises belongs to that thread, and blocking it would hide the fault.
_OF_THE_THREAD = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Starts and returns a thread that dies with the process and takes none of its signals.

    A program that blocks a signal in its threads, to wait for it with `signal.sigwait`, knows nothing of
    ours: the kernel would deliver it here, and its default ends the process.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """

    def body() -> None:
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            others = {one for one in signal.valid_signals() if getattr(one, "name", "") not in _OF_THE_THREAD}
            signal.pthread_sigmask(signal.SIG_BLOCK, others)
        run()

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread
