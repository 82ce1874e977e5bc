"""Ctrl-C in threads: it interrupts threads that are inside an objective function, and no others."""

from __future__ import annotations

import threading

import pytest

from mlflow_sysmetrics.training.hpo.trials import Interruption

PATIENCE = 60


def test_a_thread_inside_is_interrupted() -> None:
    interruption, inside, ended = Interruption(), threading.Event(), []

    def run() -> None:
        try:
            with interruption.reaches():
                inside.set()
                while True:
                    pass
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert inside.wait(PATIENCE)
    interruption.interrupt()
    thread.join(PATIENCE)
    assert ended == ["interrupted"]


def test_a_thread_that_left_is_not_interrupted() -> None:
    interruption, out, go_on, ended = Interruption(), threading.Event(), threading.Event(), []

    def run() -> None:
        with interruption.reaches():
            pass
        out.set()
        go_on.wait(PATIENCE)
        ended.append(sum(range(10_000)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert out.wait(PATIENCE)
    interruption.interrupt()
    go_on.set()
    thread.join(PATIENCE)
    assert len(ended) == 1


def test_a_thread_that_enters_later_is_interrupted_at_once() -> None:
    interruption = Interruption()
    interruption.interrupt()
    with pytest.raises(KeyboardInterrupt), interruption.reaches():
        pytest.fail("the thread entered")
