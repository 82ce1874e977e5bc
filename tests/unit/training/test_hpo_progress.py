"""Counts and the curve of the best value, from trials alone."""

from __future__ import annotations

import datetime as dt

import pytest

pytest.importorskip("optuna", reason="trials are Optuna's")

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_sysmetrics.training.hpo.study_run import best_curve, counts_of

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def trial(number: int, state: TrialState, value: float | None = None) -> FrozenTrial:
    made = create_trial(state=state, value=value)
    made.number = number
    if state is TrialState.COMPLETE:
        made.datetime_complete = dt.datetime.fromtimestamp(1000 + number)  # noqa: DTZ006 - Optuna's times are local
    return made


TRIALS = [
    trial(0, TrialState.COMPLETE, 2.0),
    trial(1, TrialState.FAIL),
    trial(2, TrialState.COMPLETE, 1.0),
    trial(3, TrialState.RUNNING),
    trial(4, TrialState.COMPLETE, 3.0),
    trial(5, TrialState.PRUNED, 9.0),
    trial(6, TrialState.WAITING),
]


def test_a_trial_that_is_only_queued_has_not_begun() -> None:
    counts = counts_of(TRIALS)
    assert (counts.completed, counts.pruned, counts.failed, counts.running) == (3, 1, 1, 1)
    assert counts.total == 6


@pytest.mark.parametrize(("direction", "values"), [(MAXIMIZE, [2.0, 2.0, 3.0]), (MINIMIZE, [2.0, 1.0, 1.0])])
def test_the_curve_is_the_best_up_to_each_number(direction: StudyDirection, values: list[float]) -> None:
    points = list(best_curve(TRIALS, direction, settled_only=False))
    assert [point.number for point in points] == [0, 2, 4]
    assert [point.value for point in points] == values


def test_the_curve_waits_for_a_trial_that_is_under_way() -> None:
    assert [point.number for point in best_curve(TRIALS, MAXIMIZE, settled_only=True)] == [0, 2]


def test_a_point_is_the_same_each_time() -> None:
    first, again = (list(best_curve(TRIALS, MAXIMIZE, settled_only=False)) for _ in range(2))
    assert first == again
    assert first[0].at == 1_000_000


def test_a_trial_that_breaks_a_constraint_is_not_the_best() -> None:
    broken = create_trial(value=99.0, system_attrs={"constraints": [1.0]})
    assert list(best_curve([*TRIALS[:1], broken], MAXIMIZE, settled_only=False))[-1].value == 2.0
