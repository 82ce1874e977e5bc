"""Threads of ours leave the program's signals to the program."""

from __future__ import annotations

import signal
import threading

import pytest

from mlflow_sysmetrics.runtime.threads import start_thread


def run_in_thread() -> set[signal.Signals | int]:
    """Returns the signals that are blocked in a thread of ours."""
    done = threading.Event()
    blocked: set[signal.Signals | int] = set()

    def body() -> None:
        blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(60)
    return blocked


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs a system with signal masks")
def test_signals_of_the_program_are_not_delivered_to_our_threads() -> None:
    blocked = run_in_thread()
    assert {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD} <= blocked
    assert not {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL} & blocked


def test_a_thread_is_a_daemon_with_a_name() -> None:
    seen: list[threading.Thread] = []
    done = threading.Event()

    def body() -> None:
        seen.append(threading.current_thread())
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(60)
    assert (seen[0].name, seen[0].daemon) == ("sysmetrics-test", True)
