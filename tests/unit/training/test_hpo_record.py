"""What is written of a trial, from the trial alone."""

from __future__ import annotations

import csv
import datetime as dt
import io

import pytest

pytest.importorskip("optuna", reason="trials are Optuna's")

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from mlflow_sysmetrics.training.hpo import outcome, summary
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.store_calls import key_of, params_of, trial_run_name
from mlflow_sysmetrics.training.hpo.trial_run import metrics_of_trial, tags_of_trial

ONE = Objectives(("f1",), ("maximize",))


def test_runs_count_from_one() -> None:
    assert [trial_run_name(number) for number in (0, 8, 9999)] == ["trial_0001", "trial_0009", "trial_10000"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lr", "hpo/lr"),
        ("optimizer.lr", "hpo/optimizer.lr"),
        ("a/b", "hpo/a/b"),
        ("a(b):c", "hpo/a_b__c"),
        ("../x", "hpo/x"),
        ("/", "hpo/_"),
        ("..", "hpo/_"),
        ("x" * 300, "hpo/" + "x" * 246),
    ],
)
def test_a_name_becomes_a_key_that_mlflow_takes(name: str, key: str) -> None:
    assert key_of("hpo", name) == key


def test_names_that_become_the_same_are_told_apart() -> None:
    assert params_of("hpo", {"a(": 1, "a)": 2}) == {"hpo/a_": "1", "hpo/a__2": "2"}


def test_a_value_that_is_too_long_ends_in_an_ellipsis() -> None:
    (value,) = params_of("hpo", {"text": "y" * 9000}).values()
    assert len(value) == 6000
    assert value.endswith("y...")


def test_what_was_reported_is_a_curve_without_what_is_no_number() -> None:
    trial = create_trial(
        state=TrialState.COMPLETE, value=1.0, intermediate_values={1: 0.5, 0: 0.25, 2: float("nan")}
    )
    metrics = metrics_of_trial(trial, outcome.completed((1.0,), 2.0), ONE)
    curve = [(one.step, one.value) for one in metrics if one.key == "trial/intermediate_value"]
    assert curve == [(0, 0.25), (1, 0.5)]
    assert {one.key for one in metrics} == {
        "trial/f1",
        "trial/number",
        "trial/duration_seconds",
        "trial/intermediate_value",
    }


def test_a_failed_trial_has_no_value() -> None:
    trial = create_trial(state=TrialState.FAIL)
    metrics = metrics_of_trial(trial, outcome.raised(ValueError("x"), 2.0), ONE)
    assert {one.key for one in metrics} == {"trial/number", "trial/duration_seconds"}


@pytest.mark.parametrize(
    ("state", "error", "status", "reason"),
    [
        (TrialState.COMPLETE, None, "FINISHED", None),
        (TrialState.PRUNED, None, "KILLED", "pruned"),
        (TrialState.FAIL, "ValueError: x", "FAILED", "ValueError: x"),
        (TrialState.FAIL, None, "KILLED", "its process ended before the trial did"),
    ],
)
def test_what_only_optuna_knows(
    state: TrialState, error: str | None, status: str, reason: str | None
) -> None:
    attributes = {} if error is None else {"error": error}
    value = 1.0 if state is TrialState.COMPLETE else None
    found = outcome.found(create_trial(state=state, value=value, user_attrs=attributes), None)
    assert (found.status, found.reason) == (status, reason)
    assert tags_of_trial(found)[0].value == state.name


def test_a_dead_trial_has_ended_when_it_was_last_heard_of() -> None:
    trial = create_trial(state=TrialState.FAIL)
    trial.datetime_complete = dt.datetime.fromtimestamp(2000)  # noqa: DTZ006 - Optuna's times are local
    assert outcome.found(trial, 5_000).ended_at == 5_000
    assert outcome.found(trial, None).ended_at == 2_000_000


def test_an_interruption_is_no_failure() -> None:
    found = outcome.raised(KeyboardInterrupt(), 1.0)
    assert (found.status, found.error) == ("KILLED", None)


def test_the_table_has_a_column_for_each_parameter_of_any_trial() -> None:
    choice = CategoricalDistribution(["a,b", 'c"d'])
    trials = [
        create_trial(value=1.0, params={"kind": "a,b"}, distributions={"kind": choice}),
        create_trial(state=TrialState.WAITING),
        create_trial(state=TrialState.FAIL, user_attrs={"error": "two\nlines"}),
        create_trial(value=2.0, params={"other": 'c"d'}, distributions={"other": choice}),
    ]
    rows = list(csv.DictReader(io.StringIO(summary.table(trials, ONE))))
    assert [row["state"] for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [row["hpo/kind"] for row in rows] == ["a,b", "", ""]
    assert [row["hpo/other"] for row in rows] == ["", "", 'c"d']
    assert rows[1]["error"] == "two\nlines"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_objectives_is_drawn(count: int) -> None:
    pytest.importorskip("plotly", reason="pages are drawn with plotly")
    names = tuple(f"metric_{index}" for index in range(count))
    study = optuna.create_study(study_name="drawn", directions=["maximize"] * count)
    study.add_trials([create_trial(values=[float(number)] * count) for number in range(3)])
    page = summary.history_page(study, Objectives(names, ("maximize",) * count), "cdn")
    assert page is not None
    assert all(name in page for name in names)
    assert ("Pareto front of drawn" in page) is (count in {2, 3})
    assert ("best so far" in page) is (count == 1)
