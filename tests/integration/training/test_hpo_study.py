"""What is on the server after a study with every kind of trial, run one at a time and in parallel."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
from hpo_programs import Study, parallel, run_program, study_of
from programs import Store, lasting

from installed import require

require("optuna", reason="Optuna is not installed")

# Of the eight trials, 2 is pruned, 3 raises, 4 returns NaN, 5 None and 6 a pair.
ENDS = """
barrier = threading.Barrier(JOBS) if JOBS > 1 else None

def objective(trial, params):
    if barrier is not None and trial.number < JOBS:
        barrier.wait(60)  # passes only if this many trials run at once
    mlflow.log_metric("train/loss_step", params["x"], step=7)
    mlflow.log_param("seen_by", trial.number)
    for step, value in enumerate((3.0, 2.0, float("nan"))):
        trial.report(value, step)
    if trial.number == 2:
        raise optuna.TrialPruned("no hope")
    if trial.number == 3:
        raise ValueError("the third one")
    with mlflow.start_run(run_name="inner", nested=True):
        mlflow.log_metric("inner", trial.number)
    return {4: float("nan"), 5: None, 6: (1.0, 2.0)}.get(trial.number, 10.0 - trial.number)

from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS
AUTOLOGGING_INTEGRATIONS.update(sklearn={"disable": False}, xgboost={"disable": True}, keras={})
heard = []
handler = logging.Handler()
handler.emit = lambda record: heard.append(record.getMessage())
logging.getLogger("mlflow_sysmetrics").addHandler(handler)

runner = OptunaRunner("ends", "minimize", "val_loss", seed=7)
result = runner.optimize(objective, 8, SPACE, mlflow_experiment_name="hpo", n_jobs=JOBS, catch=ValueError)
counts = [result.total_trials, result.completed_trials, result.pruned_trials, result.failed_trials]
print("RESULT", *counts, result.best_trial_number, result.best_value, result.unrecorded_trials)
print("AUTOLOGGING", JOBS > 1, any("autologging (sklearn) misses" in line for line in heard))
"""
COMPLETED = {"trial_0001": 0, "trial_0002": 1, "trial_0008": 7}
JOBS = [1, pytest.param(4, marks=parallel)]


@pytest.fixture(scope="module", params=JOBS, ids=["one at a time", "four at a time"])
def ended_study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> tuple[Study, str]:
    """The study and the output of its program."""
    directory = tmp_path_factory.mktemp("ends")
    uri = f"sqlite:///{shutil.copy(empty_database, directory / 'runs.db')}"
    printed = run_program(uri, directory, f"JOBS = {request.param}\n{ENDS}")
    return study_of(uri, "ends"), printed


@pytest.mark.every_database
def test_every_trial_has_one_run_with_the_status_of_the_trial(ended_study: tuple[Study, str]) -> None:
    assert ended_study[0].statuses() == {
        "trial_0001": "FINISHED",
        "trial_0002": "FINISHED",
        "trial_0003": "KILLED",
        "trial_0004": "FAILED",
        "trial_0005": "FAILED",
        "trial_0006": "FAILED",
        "trial_0007": "FAILED",
        "trial_0008": "FINISHED",
    }


def test_the_result_counts_the_trials(ended_study: tuple[Study, str]) -> None:
    assert "RESULT 8 3 1 4 7 3.0 0" in ended_study[1]


def test_parallel_trials_with_autologging_are_a_warning(ended_study: tuple[Study, str]) -> None:
    words = ended_study[1].partition("AUTOLOGGING ")[2].split()
    assert words[0] == words[1]


@pytest.mark.every_database
def test_the_run_of_the_study_has_the_same_counts(ended_study: tuple[Study, str]) -> None:
    data = ended_study[0].parent.data
    own = {key: value for key, value in data.metrics.items() if not key.startswith("system/")}
    assert own == {
        "best_val_loss": 3.0,
        "best_trial_number": 7.0,
        "total_trials": 8.0,
        "completed_trials": 3.0,
        "pruned_trials": 1.0,
        "failed_trials": 4.0,
    }
    assert ended_study[0].parent.info.status == "FINISHED"


def test_the_best_value_is_a_curve_over_the_trials(ended_study: tuple[Study, str]) -> None:
    assert ended_study[0].points("best_val_loss") == [(0, 10.0), (1, 9.0), (7, 3.0)]


def test_the_best_parameters_are_those_of_the_best_trial(ended_study: tuple[Study, str]) -> None:
    study, _ = ended_study
    best = study.trials["trial_0008"].data.params["hpo/x"]
    assert study.parent.data.params == {"best_hpo/x": best}


def test_a_trial_has_its_parameters_its_values_and_what_it_logged(ended_study: tuple[Study, str]) -> None:
    for name, number in COMPLETED.items():
        data = ended_study[0].trials[name].data
        assert data.params.keys() == {"hpo/x", "trial_number", "study_name", "seen_by"}
        assert data.params["trial_number"] == data.params["seen_by"] == str(number)
        assert data.params["study_name"] == "ends"
        own = {key: value for key, value in data.metrics.items() if not key.startswith("system/")}
        assert own.pop("trial/duration_seconds") > 0
        assert own == {
            "trial/val_loss": 10.0 - number,
            "trial/number": float(number),
            "trial/intermediate_value": 2.0,  # the third was NaN
            "train/loss_step": float(data.params["hpo/x"]),
        }


def test_reported_values_are_a_curve(ended_study: tuple[Study, str]) -> None:
    study, _ = ended_study
    for name in ("trial_0001", "trial_0003", "trial_0004"):
        run_id = study.trials[name].info.run_id
        history = Store(study.uri).client.get_metric_history(run_id, "trial/intermediate_value")
        assert sorted((one.step, one.value) for one in history) == [(0, 3.0), (1, 2.0)]


def test_every_run_has_its_own_system_metrics(ended_study: tuple[Study, str]) -> None:
    study, _ = ended_study
    for run in (study.parent, *study.trials.values()):
        assert lasting(run.data.metrics)


def test_a_trial_that_raised_has_its_traceback(ended_study: tuple[Study, str], tmp_path: Path) -> None:
    study, _ = ended_study
    text = study.artifact(study.trials["trial_0004"].info.run_id, "error.txt", tmp_path)
    assert text.startswith("Traceback (most recent call last):")
    assert text.rstrip().endswith("ValueError: the third one")


def test_a_trial_without_a_value_has_what_it_returned(ended_study: tuple[Study, str], tmp_path: Path) -> None:
    study, _ = ended_study
    for name, returned in (("trial_0005", "nan"), ("trial_0006", "None"), ("trial_0007", "(1.0, 2.0)")):
        text = study.artifact(study.trials[name].info.run_id, "error.txt", tmp_path)
        assert text.startswith(f"The objective function returned {returned},")


def test_only_failed_trials_have_an_error(ended_study: tuple[Study, str]) -> None:
    study, _ = ended_study
    failed = {name for name, run in study.trials.items() if "error.txt" in study.artifacts(run.info.run_id)}
    assert failed == {"trial_0004", "trial_0005", "trial_0006", "trial_0007"}


def test_a_pruned_trial_has_its_reason(ended_study: tuple[Study, str]) -> None:
    tags = ended_study[0].trials["trial_0003"].data.tags
    assert tags["hpo.ended_because"] == "pruned: no hope"
    assert tags["optuna.trial_state"] == "PRUNED"


def test_a_nested_run_of_the_objective_is_a_child_of_its_trial(ended_study: tuple[Study, str]) -> None:
    study, _ = ended_study
    for name, number in COMPLETED.items():
        trial = study.trials[name]
        (inner,) = Store(study.uri).client.search_runs(
            [trial.info.experiment_id], f"tags.`mlflow.parentRunId` = '{trial.info.run_id}'"
        )
        assert inner.data.metrics["inner"] == number


def test_the_history_table_has_a_row_per_trial(ended_study: tuple[Study, str], tmp_path: Path) -> None:
    study, _ = ended_study
    text = study.artifact(study.parent.info.run_id, "hpo_trials_history.csv", tmp_path)
    rows = list(csv.DictReader(io.StringIO(text)))
    states = ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert [row["state"] for row in rows] == states
    assert [row["run_id"] for row in rows] == [run.info.run_id for run in study.trials.values()]
    assert rows[7]["val_loss"] == "3.0"
    assert rows[3]["error"] == "ValueError: the third one"
    assert rows[0]["hpo/x"] == study.trials["trial_0001"].data.params["hpo/x"]


def test_the_history_is_drawn(ended_study: tuple[Study, str], tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    study, _ = ended_study
    page = study.artifact(study.parent.info.run_id, "hpo_optimization_history.html", tmp_path)
    assert "val_loss" in page
    assert "Optimization history of ends" in page
