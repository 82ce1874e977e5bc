"""Our threads leave the signals of the program to its own threads."""

from __future__ import annotations

import signal
import threading

import pytest

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.threads import start_thread


def run_in_thread() -> set[signal.Signals | int]:
    """Returns the signals that are blocked in one of our threads."""
    done = threading.Event()
    blocked: set[signal.Signals | int] = set()

    def body() -> None:
        blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(60)
    return blocked


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs a system with signal masks")
def test_our_threads_block_the_signals_of_the_program() -> None:
    blocked = run_in_thread()
    assert {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD} <= blocked
    assert not {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL} & blocked


def test_a_thread_is_a_named_daemon() -> None:
    seen: list[threading.Thread] = []
    done = threading.Event()

    def body() -> None:
        seen.append(threading.current_thread())
        done.set()

    start_thread(body, "sysmetrics-test")
    assert done.wait(60)
    assert (seen[0].name, seen[0].daemon) == ("sysmetrics-test", True)


def test_a_thread_that_cannot_be_started_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(ThreadUnavailable, match="no thread can be started: can't start new thread"):
        start_thread(lambda: None, "sysmetrics-test")
