"""Whether a process that has carried out a trial is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process


def test_this_process_is_here() -> None:
    assert not is_gone(this_process())


def test_a_process_that_has_ended_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_gone({**this_process(), "pid": child.pid})


@pytest.mark.parametrize("changed", [{"began": 1.0}, {"boot": "another"}])
def test_its_id_given_to_another_process_does_not_bring_it_back(changed: dict[str, object]) -> None:
    assert is_gone({**this_process(), **changed})


@pytest.mark.parametrize("changed", [{"host": "another"}, {"namespace": -1}, {"pid": "x"}])
def test_one_that_cannot_be_seen_counts_as_alive(changed: dict[str, object]) -> None:
    assert not is_gone({**this_process(), **changed})


@pytest.mark.parametrize("written", [None, "", {}, 3, {"host": "another"}])
def test_what_was_written_by_somebody_else_counts_as_alive(written: object) -> None:
    assert not is_gone(written)
