"""Our threads in the user's process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

# The kernel delivers these to the thread that caused them; blocking them would hide the fault.
_RAISED_BY_THE_THREAD = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Starts and returns a daemon thread that receives none of the process's signals.

    A program that blocks a signal in its own threads and waits for it with `signal.sigwait` does not know
    about ours. The kernel would deliver the signal here, and its default action would end the process.

    Raises:
        RuntimeError: the interpreter is shutting down, or the system's thread limit is reached.
    """

    def body() -> None:
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            blocked = {
                one for one in signal.valid_signals() if getattr(one, "name", "") not in _RAISED_BY_THE_THREAD
            }
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        run()

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread
