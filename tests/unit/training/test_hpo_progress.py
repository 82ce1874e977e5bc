"""Trial counts and the curve of the best value."""

from __future__ import annotations

import datetime as dt

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_sysmetrics.training.hpo.study_run import best_curve, counts_of

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def local_time(seconds: int) -> dt.datetime:
    """Returns a time as Optuna stores it: local and without a time zone."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.timezone.utc).astimezone().replace(tzinfo=None)


def trial(number: int, state: TrialState, value: float | None = None) -> FrozenTrial:
    made = create_trial(state=state, value=value)
    made.number = number
    if state is TrialState.COMPLETE:
        made.datetime_complete = local_time(1000 + number)
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


def test_queued_trials_do_not_count() -> None:
    counts = counts_of(TRIALS)
    assert (counts.completed, counts.pruned, counts.failed, counts.running) == (3, 1, 1, 1)
    assert counts.total == 6


@pytest.mark.parametrize(("direction", "values"), [(MAXIMIZE, [2.0, 2.0, 3.0]), (MINIMIZE, [2.0, 1.0, 1.0])])
def test_the_curve_has_the_best_value_up_to_each_trial(
    direction: StudyDirection, values: list[float]
) -> None:
    points = list(best_curve(TRIALS, direction, settled_only=False))
    assert [point.number for point in points] == [0, 2, 4]
    assert [point.value for point in points] == values


def test_the_curve_stops_before_a_running_trial() -> None:
    assert [point.number for point in best_curve(TRIALS, MAXIMIZE, settled_only=True)] == [0, 2]


def test_the_points_of_the_curve_do_not_change() -> None:
    first, again = (list(best_curve(TRIALS, MAXIMIZE, settled_only=False)) for _ in range(2))
    assert first == again
    assert first[0].at == 1_000_000


def test_a_trial_that_violates_a_constraint_is_not_the_best() -> None:
    broken = create_trial(value=99.0, system_attrs={"constraints": [1.0]})
    assert list(best_curve([*TRIALS[:1], broken], MAXIMIZE, settled_only=False))[-1].value == 2.0
