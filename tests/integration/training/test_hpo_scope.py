"""What a study leaves unchanged, where its runs are, and what it rejects before it creates any."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from hpo_programs import environ_for, run_program, study_of, written
from programs import Store

from installed import require

require("optuna", reason="Optuna is not installed")

INSIDE = """
mlflow.set_experiment("mine")
before = {name: os.environ.get(name) for name in os.environ if name.startswith("MLFLOW_")}
with mlflow.start_run(run_name="outer") as outer:
    os.environ["MLFLOW_RUN_ID"] = "0123456789abcdef0123456789abcdef"
    result = OptunaRunner("inside", metric="score").optimize(
        lambda trial, params: 1.0, 2, SPACE, mlflow_experiment_name=EXPERIMENT)
    print("RUN_ID", os.environ.pop("MLFLOW_RUN_ID"))
    print("ACTIVE", mlflow.active_run().info.run_id == outer.info.run_id)
    mlflow.log_metric("after", 1.0)
    print("OUTER", outer.info.run_id)
after = {name: os.environ.get(name) for name in os.environ if name.startswith("MLFLOW_")}
print("SAME", before == after)
mlflow.start_run(); print("EXPERIMENT", mlflow.active_run().info.experiment_id == outer.info.experiment_id)
"""


@pytest.mark.parametrize("experiment", [None, "theirs"])
def test_a_study_inside_a_run_is_its_child_and_leaves_the_environment_unchanged(
    store: Store, tmp_path: Path, experiment: str | None
) -> None:
    printed = run_program(store.uri, tmp_path, f"EXPERIMENT = {experiment!r}\n{INSIDE}")
    assert "RUN_ID 0123456789abcdef0123456789abcdef" in printed
    assert "ACTIVE True" in printed
    assert "SAME True" in printed
    assert "EXPERIMENT True" in printed
    study = study_of(store.uri, "inside")
    outer = Store(store.uri).client.get_run(printed.partition("OUTER ")[2].split()[0])
    assert study.parent.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert (study.parent.info.experiment_id == outer.info.experiment_id) is (experiment is None)
    assert outer.info.status == "FINISHED"
    assert outer.data.metrics["after"] == 1.0
    assert list(study.statuses().values()) == ["FINISHED"] * 2
    assert {run.info.experiment_id for run in study.trials.values()} == {study.parent.info.experiment_id}


ELSEWHERE = """
mlflow.set_experiment("mine")
with mlflow.start_run() as outer:
    OptunaRunner("elsewhere", metric="score").optimize(
        lambda trial, params: 1.0, 1, SPACE, mlflow_tracking_uri=os.environ["ELSEWHERE"])
    mlflow.log_metric("after", 1.0)
    print("BACK", mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"])
"""


def test_a_study_on_another_server_is_not_a_child_of_a_run_on_this_one(
    store: Store, tmp_path: Path, empty_database: Path
) -> None:
    other = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'other.db')}"
    printed = run_program(store.uri, tmp_path, ELSEWHERE, ELSEWHERE=other)
    assert "BACK True" in printed
    study = study_of(other, "elsewhere")
    assert "mlflow.parentRunId" not in study.parent.data.tags
    assert study.parent.info.experiment_id == "0"


CARELESS = """
def objective(trial):
    x = trial.suggest_float("a b/c:d", 0, 1)
    trial.suggest_categorical("long", ["y" * 7000])
    if trial.number == 0:
        mlflow.end_run()
        mlflow.end_run()
        mlflow.log_metric("late", 1.0)
    if trial.number == 1:
        mlflow.start_run(nested=True)
    return x

OptunaRunner("careless", metric="score").optimize(objective, 3)
print("ACTIVE", mlflow.active_run())
"""


def test_an_objective_that_ends_its_run_or_leaves_runs_open_affects_no_other_trial(
    store: Store, tmp_path: Path
) -> None:
    printed = run_program(store.uri, tmp_path, CARELESS)
    assert "ACTIVE None" in printed
    study = study_of(store.uri, "careless")
    assert list(study.statuses().values()) == ["FINISHED"] * 3
    assert study.parent.info.status == "FINISHED"
    assert "late" not in study.parent.data.metrics
    assert not Store(store.uri).client.search_runs(
        [study.parent.info.experiment_id], "attributes.status = 'RUNNING'"
    )


def test_names_and_values_that_mlflow_refuses_are_adapted(store: Store, tmp_path: Path) -> None:
    run_program(store.uri, tmp_path, CARELESS)
    params = study_of(store.uri, "careless").trials["trial_0003"].data.params
    assert 0 <= float(params["hpo/a b/c_d"]) <= 1
    assert params["hpo/long"].startswith("yyyy")
    assert params["hpo/long"].endswith("...")


FRONT = """
def objective(trial, params):
    return {0: (1.0, 5.0), 1: (2.0, 2.0), 2: (0.5, 6.0), 3: (3.0, float("nan"))}[trial.number]

result = OptunaRunner("front", directions=["maximize", "minimize"], metrics=["f1", "latency"]).optimize(
    objective, 4, SPACE)
print("RESULT", result.best_trial_number, result.best_params, result.pareto_trial_numbers)
"""


def test_several_objectives_have_a_pareto_front_and_no_best_trial(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, FRONT)
    assert "RESULT None {} (1,)" in printed
    study = study_of(store.uri, "front")
    own = {k: v for k, v in study.parent.data.metrics.items() if not k.startswith("system/")}
    assert own == {
        "total_trials": 4.0,
        "completed_trials": 3.0,
        "pruned_trials": 0.0,
        "failed_trials": 1.0,
        "pareto_trials": 1.0,
    }
    assert study.parent.data.params == {}
    metrics = study.trials["trial_0002"].data.metrics
    assert (metrics["trial/f1"], metrics["trial/latency"]) == (2.0, 2.0)
    assert study.statuses()["trial_0004"] == "FAILED"
    front = json.loads(study.artifact(study.parent.info.run_id, "hpo_pareto_front.json", tmp_path))
    assert [(one["number"], one["values"]) for one in front] == [(1, {"f1": 2.0, "latency": 2.0})]


REFUSED = """
runner = OptunaRunner("refused", metric="score")
for wrong in (
    dict(search_space={"depth": {"type": "integer", "low": 1, "high": 2}}),
    dict(search_space={"depth": {"type": "int", "low": 3, "high": 2}}),
    dict(n_trials=0), dict(n_jobs=0), dict(timeout=-1), dict(catch=("ValueError",)), dict(objective_fn="f"),
):
    try:
        runner.optimize(**{"objective_fn": lambda trial, params: 1.0, "n_trials": 1, **wrong})
    except ValueError as error:
        print("REFUSED", error)
print("PARENT", runner.parent_run_id)
"""


def test_invalid_arguments_are_rejected_before_a_run_is_created(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, REFUSED)
    assert "REFUSED search_space['depth']: type must be one of categorical, int" in printed
    assert "REFUSED search_space['depth']: low must be <= high, got low=3 and high=2" in printed
    assert printed.count("REFUSED") == 7
    assert "PARENT None" in printed
    assert not Store(store.uri).client.search_runs(["0"])


AGAIN = """
def objective(trial, params):
    return 10.0 * trial.number

def made(): return OptunaRunner("again", metric="score", storage="sqlite:///study.db")
first = made().optimize(objective, 2, SPACE)
same = made().optimize(objective, 2, SPACE)
more = made().optimize(objective, 3, SPACE)
print("TOTALS", first.total_trials, same.total_trials, more.total_trials, first.parent_run_id == more.parent_run_id)
for wrong in (dict(direction="minimize", metric="score"), dict(metric="loss")):
    try:
        OptunaRunner("again", storage="sqlite:///study.db", **wrong)
    except ValueError as error:
        print("REFUSED", error)
mlflow.MlflowClient().delete_run(more.parent_run_id)
fresh = made().optimize(objective, 4, SPACE)
print("FRESH", fresh.parent_run_id != more.parent_run_id, fresh.total_trials)
"""


def test_more_trials_are_added_to_the_same_run_and_update_the_best(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, AGAIN)
    assert "TOTALS 2 2 3 True" in printed
    assert printed.count("REFUSED Study 'again' exists with the") == 2
    assert "was deleted. The study continues in a new run" in printed
    assert "FRESH True 4" in printed
    fresh = study_of(store.uri, "again")
    assert list(fresh.trials) == ["trial_0004"]
    assert fresh.points("best_score") == [(n, 10.0 * n) for n in range(4)]


STALE = AGAIN.partition("for wrong")[0]


def test_parameters_of_an_earlier_end_stay_and_the_tags_have_the_best(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, STALE)
    study = study_of(store.uri, "again")
    assert study.parent.data.params["best_hpo/x"] == study.trials["trial_0002"].data.params["hpo/x"]
    assert study.parent.data.tags["best_hpo/x"] == study.trials["trial_0003"].data.params["hpo/x"]
    assert "MLflow cannot change parameters" in printed


SHARED = """
def objective(trial, params):
    time.sleep(0.05)
    return params["x"]
OptunaRunner("shared", metric="score", storage="sqlite:///study.db").optimize(objective, 12, SPACE)
"""


def test_two_processes_can_share_a_study(store: Store, tmp_path: Path) -> None:
    run_program(store.uri, tmp_path, SHARED.replace("12", "1"))  # creates the tables and the run
    path = written(tmp_path, SHARED)
    both = [
        forks.popen(
            [path],
            env=environ_for(store.uri),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [one.wait(300) for one in both] == [0, 0]
    study = study_of(store.uri, "shared")
    assert len(study.trials) in {12, 13}  # both may start what they take for the last trial
    assert set(study.statuses().values()) == {"FINISHED"}


ABSENT = """
sys.modules["optuna"] = None
import mlflow_sysmetrics.training.hpo as hpo
try:
    hpo.OptunaRunner("study", metric="score")
except ModuleNotFoundError as error:
    print("ABSENT", error)
"""


def test_without_optuna_the_runner_names_the_extra(tmp_path: Path) -> None:
    path = tmp_path / "absent.py"
    path.write_text("import sys\n" + ABSENT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path)], capture_output=True, text=True, check=True
    )
    assert 'OptunaRunner needs optuna, which is not installed: pip install "optuna>=' in (done.stdout)


UNDRAWN = """
sys.modules["plotly"] = None
sys.modules["pandas"] = None
logging.basicConfig(level=logging.WARNING)
OptunaRunner("undrawn", metric="score").optimize(lambda trial, params: 1.0, 2, SPACE)
"""


def test_the_table_is_written_without_plotly_and_pandas(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, UNDRAWN, own_interpreter=True)
    assert printed.count("hpo_optimization_history.html is left out: ") == 1
    assert 'needs plotly, which is not installed: pip install "optuna>=' in printed
    assert '"plotly>=' in printed
    study = study_of(store.uri, "undrawn")
    assert study.artifacts(study.parent.info.run_id) == {"hpo_trials_history.csv"}
