"""Studies during an outage of a real tracking server."""

from __future__ import annotations

from pathlib import Path

from chaos_server import TrackingServer
from hpo_programs import run_program, study_of
from programs import Store

from installed import require

require("optuna", reason="Optuna is not installed")
pytest_plugins = ["chaos_fixtures"]

CHAOS = Path(__file__).parents[1] / "chaos"
# The proxy runs inside the program, so that an outage begins and ends at an exact line of it.
OUTAGE = f"""
sys.path += [{str(CHAOS)!r}, {str(CHAOS.parent)!r}, {str(CHAOS.parents[1])!r}]
import logging
from chaos_proxy import Proxy
from mlflow_sysmetrics.training.hpo import store_calls
store_calls._TIMEOUT_SECONDS, store_calls._OUTAGE_TIMEOUT_SECONDS = 3.0, 0.5
logging.basicConfig(level=logging.WARNING)
optuna.logging.set_verbosity(optuna.logging.ERROR)
proxy = Proxy(int(os.environ["SERVER_PORT"]))
mlflow.set_tracking_uri(proxy.url)
NAME = os.environ["STUDY"]
"""
PASSING = """
def objective(trial, params):
    if trial.number == 2:
        proxy.trouble("refuse")
    if trial.number == 5:
        proxy.trouble("none")
    return float(trial.number)

result = OptunaRunner(NAME, metric="score").optimize(objective, 8, SPACE)
print("RESULT", result.completed_trials, result.unrecorded_trials)
"""
LASTING = """
def objective(trial, params):
    if trial.number == 1:
        proxy.trouble("refuse")
    if trial.number == 2:
        raise ValueError("unseen")
    return float(trial.number)

runner = OptunaRunner(NAME, metric="score")
result = runner.optimize(objective, 4, SPACE, catch=(ValueError,))
print("RESULT", result.completed_trials, result.unrecorded_trials)
proxy.trouble("none")
result = runner.optimize(objective, 4, SPACE)
print("LATER", result.completed_trials, result.unrecorded_trials)
"""
BACK_WITHIN_A_TRIAL = """
def objective(trial, params):
    if trial.number == 0:
        proxy.trouble("refuse")
    if trial.number == 1:
        proxy.trouble("none")
        mlflow.log_metric("train/loss_step", 0.5)
    return float(trial.number)

result = OptunaRunner(NAME, metric="score").optimize(objective, 3, SPACE)
print("RESULT", result.completed_trials, result.unrecorded_trials, mlflow.active_run())
"""


def outage(tracking: TrackingServer, directory: Path, study: str, code: str) -> str:
    return run_program(
        "",
        directory,
        OUTAGE + code,
        SERVER_PORT=str(tracking.port),
        STUDY=study,
        MLFLOW_SYSMETRICS_FLUSH_TIMEOUT="1",
    )


def url(tracking: TrackingServer) -> str:
    return f"http://127.0.0.1:{tracking.port}"


def test_nothing_is_missing_after_a_short_outage(tracking: TrackingServer, tmp_path: Path) -> None:
    printed = outage(tracking, tmp_path, "passing", PASSING)
    assert "RESULT 8 0" in printed
    assert (
        printed.count("did not accept data of the study (Connection refused)")
        + printed.count("did not accept data of the study (no answer within 3 s)")
        == 1
    )
    study = study_of(url(tracking), "passing")
    assert list(study.statuses().values()) == ["FINISHED"] * 8
    for number, run in enumerate(study.trials.values()):
        assert run.data.metrics["trial/score"] == number
        assert run.data.params["hpo/x"]
    assert study.parent.info.status == "FINISHED"
    assert study.points("best_score") == [(n, float(n)) for n in range(8)]


def test_data_missed_in_a_long_outage_is_written_by_the_next_optimize(
    tracking: TrackingServer, tmp_path: Path
) -> None:
    printed = outage(tracking, tmp_path, "lasting", LASTING)
    assert "RESULT 3 3" in printed
    assert "is incomplete on the tracking server (missing trials: 3)" in printed
    assert "LATER 3 0" in printed
    study = study_of(url(tracking), "lasting")
    assert list(study.statuses().values()) == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    failed = study.trials["trial_0003"]
    assert study.artifact(failed.info.run_id, "error.txt", tmp_path) == "ValueError: unseen\n"
    assert study.parent.info.status == "FINISHED"
    assert study.parent.data.metrics["completed_trials"] == 3


def test_the_run_that_a_trial_without_one_logs_to_becomes_its_run(
    tracking: TrackingServer, tmp_path: Path
) -> None:
    printed = outage(tracking, tmp_path, "back", BACK_WITHIN_A_TRIAL)
    assert "RESULT 3 0 None" in printed
    study = study_of(url(tracking), "back")
    assert list(study.statuses().values()) == ["FINISHED"] * 3
    assert study.trials["trial_0002"].data.metrics["train/loss_step"] == 0.5
    assert study.trials["trial_0002"].data.metrics["trial/score"] == 1.0
    assert "train/loss_step" not in study.parent.data.metrics
    assert Store(url(tracking)).client.get_run(study.parent.info.run_id).info.status == "FINISHED"
