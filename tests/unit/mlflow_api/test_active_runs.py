"""A run becomes the active one of the thread that asks for it, or of none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.tracking import fluent

from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout


class Started:
    """Stands in for what `mlflow.start_run` and `mlflow.end_run` do, without a server."""

    def __init__(self) -> None:
        self.may_start = threading.Event()
        self.ended: list[tuple[str, str]] = []
        self.all_over = threading.Event()

    def start_run(self, run_id: str, log_system_metrics: bool | None = None) -> Any:
        assert log_system_metrics is False
        self.may_start.wait(60)
        run = SimpleNamespace(info=SimpleNamespace(run_id=run_id))
        fluent_state.run_stack().append(run)
        return run

    def end_run(self, status: str) -> None:
        self.ended.append((fluent_state.run_stack().pop().info.run_id, status))
        self.all_over.set()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    fake = Started()
    monkeypatch.setattr(mlflow, "start_run", fake.start_run)
    monkeypatch.setattr(mlflow, "end_run", fake.end_run)
    yield fake
    fluent_state.run_stack().clear()


def test_a_run_is_active_in_the_thread_that_asked(started: Started) -> None:
    started.may_start.set()
    run = active_runs.start_run("a", 60)
    assert fluent_state.active_run_ids() == ("a",)
    assert fluent_state.run_stack()[0] is run


def test_no_other_thread_keeps_it_active(started: Started) -> None:
    started.may_start.set()
    active_runs.start_run("a", 60)
    stacks = fluent._active_run_stack
    if not isinstance(stacks, list):  # as of MLflow 2.8
        assert sum(map(len, stacks.get_all_thread_values().values())) == 1


def test_a_start_that_takes_too_long_is_not_waited_for(started: Started) -> None:
    with pytest.raises(CallTimeout):
        active_runs.start_run("a", 0.05)
    started.may_start.set()
    assert started.all_over.wait(60)


def test_a_run_that_starts_too_late_is_ended(started: Started) -> None:
    with pytest.raises(CallTimeout):
        active_runs.start_run("a", 0.05)
    started.may_start.set()
    assert started.all_over.wait(60)
    assert (started.ended, fluent_state.active_run_ids()) == ([("a", "FAILED")], ())


def test_runs_inside_a_run_end_before_it(started: Started) -> None:
    started.may_start.set()
    for run_id in ("outer", "ours", "inner", "innermost"):
        started.start_run(run_id, log_system_metrics=False)
    active_runs.end_run("ours", "KILLED")
    assert started.ended == [("innermost", "KILLED"), ("inner", "KILLED"), ("ours", "KILLED")]
    assert fluent_state.active_run_ids() == ("outer",)


def test_the_monitor_of_a_new_run_finds_the_run_in_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.system_metrics import system_metrics_monitor

    found: list[Any] = []

    class Monitor:
        def __init__(self, run_id: str, **named: object) -> None:
            assert named in ({}, {"resume_logging": False})
            self._run_id = run_id

        def start(self) -> None:
            found.append(fluent_state.run_being_started(sys._getframe(1), self._run_id))

    monkeypatch.setattr(system_metrics_monitor, "SystemMetricsMonitor", Monitor)
    run = SimpleNamespace(info=SimpleNamespace(run_id="a"))
    active_runs.start_system_metrics("a", wanted=True, new_run=run)
    fluent_state.registered_monitors().pop("a")
    assert found == [run]
