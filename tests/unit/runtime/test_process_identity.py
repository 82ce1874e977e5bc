"""Whether a process is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from mlflow_sysmetrics.runtime.process_identity import is_gone, is_running, this_process


def test_this_process_is_not_gone() -> None:
    assert not is_gone(this_process())


@pytest.mark.heavy
def test_a_process_that_has_ended_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_gone({**this_process(), "pid": child.pid})


@pytest.mark.parametrize("changed", [{"began": 1.0}, {"boot": "another"}])
def test_a_reused_id_is_not_the_same_process(changed: dict[str, object]) -> None:
    assert is_gone({**this_process(), **changed})


@pytest.mark.parametrize("changed", [{"host": "another"}, {"namespace": -1}, {"pid": "x"}])
def test_an_invisible_process_counts_as_running(changed: dict[str, object]) -> None:
    assert not is_gone({**this_process(), **changed})


@pytest.mark.parametrize("written", [None, "", {}, 3, {"host": "another"}])
def test_an_unknown_record_counts_as_running(written: object) -> None:
    assert not is_gone(written)


def test_a_process_that_began_later_has_reused_the_id() -> None:
    began = this_process()["began"]
    assert is_running(os.getpid(), began_before=began)
    assert not is_running(os.getpid(), began_before=began - 60)


@pytest.mark.heavy
def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.read()  # returns when the child has closed it, at its end
        deadline = time.monotonic() + 30
        while is_running(child.pid, began_before=time.time()):
            assert time.monotonic() < deadline
    finally:
        child.communicate()
