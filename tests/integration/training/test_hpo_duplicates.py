"""A trial has one run on the server, whatever became of the answers to its creation."""

from __future__ import annotations

from pathlib import Path

from chaos_server import TrackingServer
from hpo_programs import study_of
from test_hpo_outage import outage, url

from installed import require

require("optuna", reason="Optuna is not installed")
pytest_plugins = ["chaos_fixtures"]

CREATE = "/api/2.0/mlflow/runs/create"
LOST_ANSWER = f"""
def objective(trial, params):
    return float(trial.number)

def lose(study, trial):
    if trial.number == 0:
        proxy.trouble("lose-answer", only={CREATE!r})
        threading.Timer(0.1, lambda: eventually(lambda: len(creations()) > 2) or proxy.trouble("none")).start()

def creations():
    return [one for one in proxy.requests if one.path == {CREATE!r}]

result = OptunaRunner(NAME, metric="score").optimize(objective, 3, SPACE, callbacks=[lose])
print("RESULT", result.completed_trials, result.unrecorded_trials)
"""
# The server answers the creation after the client gave up; the client looks for the run and finds none yet.
LATE_ANSWER = """
import chaos_proxy
from mlflow_sysmetrics.training.hpo import trial_run

given_up, committed = threading.Event(), threading.Event()

def late(spoiled):
    given_up.wait(60)
    spoiled.forward()
    committed.set()

def objective(trial, params):
    if trial.number == 0:
        given_up.set()
        assert committed.wait(60)
    return float(trial.number)

def hold_first_creation(spoiled):
    hold = spoiled.request.path.endswith("runs/create") and b"trial_0001" in spoiled.request.body
    late(spoiled) if hold and not given_up.is_set() else spoiled.client.sendall(spoiled.forward())

chaos_proxy.TROUBLES = {**chaos_proxy.TROUBLES, "none": hold_first_creation}
looks = trial_run.run_of_trial
trial_run.run_of_trial = lambda study_run, number: None if number == 0 else looks(study_run, number)
store_calls._OUTAGE_TIMEOUT_SECONDS = 30.0

runner = OptunaRunner(NAME, metric="score")
result = runner.optimize(objective, 2, SPACE)
print("RESULT", result.completed_trials, result.unrecorded_trials)
"""


def test_a_creation_whose_answer_is_lost_is_found_again(tracking: TrackingServer, tmp_path: Path) -> None:
    assert "RESULT 3 0" in outage(tracking, tmp_path, "lost", LOST_ANSWER)
    study = study_of(url(tracking), "lost")  # fails if a trial has two runs
    assert list(study.statuses().values()) == ["FINISHED"] * 3


def test_a_run_that_was_created_after_its_study_gave_up_is_deleted(
    tracking: TrackingServer, tmp_path: Path
) -> None:
    assert "RESULT 2 0" in outage(tracking, tmp_path, "late", LATE_ANSWER)
    study = study_of(url(tracking), "late")
    assert list(study.statuses().values()) == ["FINISHED"] * 2
    assert [run.data.metrics["trial/score"] for run in study.trials.values()] == [0.0, 1.0]
