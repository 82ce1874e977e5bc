"""Of several runs of one trial one is kept, and no run that somebody still needs is deleted."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_sysmetrics.runtime.process_identity import this_process
from mlflow_sysmetrics.training.hpo import child_runs
from mlflow_sysmetrics.training.hpo.optuna_study import PROCESS
from mlflow_sysmetrics.training.hpo.store_calls import StoreCalls

ELSEWHERE = {**this_process(), "host": "another machine"}
DEAD = {**this_process(), "began": 1.0}
COMPLETE = {"optuna.trial_state": "COMPLETE"}
OWN_DATA = {"loss": 0.5}


def run(
    name: str,
    *,
    status: str = "RUNNING",
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    stage: str = "active",
) -> Any:
    info = SimpleNamespace(run_id=name, status=status, start_time=0, lifecycle_stage=stage)
    data = SimpleNamespace(
        tags={"optuna.trial_number": "0", **(tags or {})}, metrics=metrics or {}, params={"hpo/x": "1"}
    )
    return SimpleNamespace(info=info, data=data)


def complete(name: str, **fields: Any) -> Any:
    return run(name, status="FINISHED", tags=COMPLETE, **fields)


class Page(list[Any]):
    """The last page of results."""

    token = None


class Client:
    """Has some runs.

    Attributes:
        deleted: the runs that were deleted.
    """

    def __init__(self, *runs: Any) -> None:
        self._runs = {one.info.run_id: one for one in runs}
        self.deleted: list[str] = []

    def search_runs(self, *_: object, **__: object) -> Page:
        return Page(self._runs.values())

    def get_run(self, run_id: str) -> Any:
        return self._runs[run_id]

    def set_terminated(self, run_id: str, status: str) -> None:
        assert status == "KILLED"

    def delete_run(self, run_id: str) -> None:
        self.deleted.append(run_id)


def trial(
    process: object, state: TrialState = TrialState.COMPLETE, *, ended_seconds_ago: float = 1
) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=1.0 if state is TrialState.COMPLETE else None,
        user_attrs={PROCESS: process},
    )
    if state.is_finished():
        made.datetime_complete = dt.datetime.now() - dt.timedelta(seconds=ended_seconds_ago)  # noqa: DTZ005 - as Optuna
    return made


def deleted(one: FrozenTrial, *runs: Any) -> list[str]:
    client = Client(*runs)
    study_run: Any = SimpleNamespace(
        client=client,
        run_id="study",
        experiment_id="0",
        calls=StoreCalls("http://localhost"),
        trials=lambda: [one],
    )
    child_runs.delete_duplicates(study_run)
    return client.deleted


@pytest.mark.parametrize("process", [this_process(), DEAD])
def test_the_run_without_an_outcome_is_deleted(process: object) -> None:
    assert deleted(trial(process), run("late"), complete("kept")) == ["late"]


def test_of_two_complete_runs_every_process_keeps_the_same() -> None:
    assert deleted(trial(DEAD), complete("b"), complete("a")) == ["b"]
    assert deleted(trial(DEAD), complete("a"), complete("b")) == ["b"]


def test_the_only_run_of_a_trial_is_kept() -> None:
    assert deleted(trial(DEAD), run("only")) == []
    assert deleted(trial(DEAD), complete("only")) == []


def test_nothing_is_deleted_before_a_run_has_the_outcome() -> None:
    assert deleted(trial(DEAD), run("a"), run("b")) == []


def test_nothing_of_a_running_trial_is_deleted() -> None:
    assert deleted(trial(this_process(), TrialState.RUNNING), run("a"), complete("b")) == []


def test_a_run_of_a_process_that_may_still_write_is_kept() -> None:
    assert deleted(trial(ELSEWHERE), run("late"), complete("kept")) == []
    assert deleted(trial(ELSEWHERE, ended_seconds_ago=3600), run("late"), complete("kept")) == ["late"]


def test_a_run_with_data_of_the_objective_function_is_never_deleted() -> None:
    assert deleted(trial(DEAD), run("data", metrics=OWN_DATA), complete("empty")) == []
    assert deleted(trial(DEAD), complete("data", metrics=OWN_DATA), complete("empty")) == ["empty"]


def test_a_run_that_another_process_has_deleted_is_left_alone() -> None:
    assert deleted(trial(DEAD), run("late", stage="deleted"), complete("kept")) == []
