"""Ctrl-C in threads: it reaches those that are inside, and no others."""

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
    interruption.call()
    thread.join(PATIENCE)
    assert ended == ["interrupted"]


def test_a_thread_that_has_come_out_is_not() -> None:
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
    interruption.call()
    go_on.set()
    thread.join(PATIENCE)
    assert len(ended) == 1


def test_who_comes_later_does_not_get_in() -> None:
    interruption = Interruption()
    interruption.call()
    with pytest.raises(KeyboardInterrupt), interruption.reaches():
        pytest.fail("it got in")
