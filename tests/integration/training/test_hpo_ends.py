"""Studies that end early (kill -9, Ctrl-C, trials that raise), and how they are resumed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import forks
import pytest
from hpo_programs import environ_for, parallel, run_program, study_of, written
from programs import Store

from installed import require

require("optuna", reason="Optuna is not installed")

RESUMABLE = """
dies = sys.argv[1:] == ["dies"]

def objective(trial, params):
    mlflow.log_metric("train/loss_step", params["x"])
    if dies and trial.number == 4:
        print("fifth", flush=True)
        while True:
            time.sleep(0.05)
    return float(trial.number)

runner = OptunaRunner("resumed", "maximize", "score", "sqlite:///study.db", seed=1)
result = runner.optimize(objective, 10, SPACE, mlflow_experiment_name="hpo", progress=False)
print("RESULT", result.total_trials, result.completed_trials, result.failed_trials, result.best_trial_number)
"""


@pytest.fixture
def resumed(store: Store, tmp_path: Path) -> str:
    """The output of the second process; the first was killed in the fifth trial."""
    path = written(tmp_path, RESUMABLE)
    first = forks.popen(
        [str(path), "dies"],
        env=environ_for(store.uri),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert first.stdout is not None
        assert any("fifth" in line for line in first.stdout)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    return run_program(store.uri, tmp_path, RESUMABLE)


@pytest.mark.every_database
def test_a_killed_study_is_resumed_in_its_run_and_marks_the_dead_trial(resumed: str, store: Store) -> None:
    study = study_of(store.uri, "resumed")
    assert "RESULT 10 9 1 9" in resumed
    ends = ["FINISHED"] * 10
    ends[4] = "KILLED"
    assert list(study.statuses().values()) == ends
    dead = study.trials["trial_0005"]
    assert dead.data.tags["hpo.ended_because"] == "its process ended before the trial did"
    assert dead.data.tags["optuna.trial_state"] == "FAIL"
    assert dead.data.params["hpo/x"]  # written when the trial began
    assert study.parent.info.status == "FINISHED"
    metrics = study.parent.data.metrics
    assert metrics["total_trials"] == 10
    assert metrics["completed_trials"] == 9
    assert metrics["failed_trials"] == 1
    assert study.points("best_score") == [(n, float(n)) for n in range(10) if n != 4]
    seen = [run.data.params["hpo/x"] for run in study.trials.values()]
    assert len(set(seen)) == 10  # the seed does not repeat the first suggestions


INTERRUPTED = """
under_way = threading.Semaphore(0)

def press():
    for _ in range(JOBS):
        under_way.acquire()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()

def objective(trial, params):
    if trial.number < 2:
        return params["x"]
    under_way.release()
    while True:
        time.sleep(0.05)

try:
    OptunaRunner("interrupted", metric="score").optimize(objective, 20, SPACE, n_jobs=JOBS)
except KeyboardInterrupt:
    print("INTERRUPTED", mlflow.active_run())
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(3, marks=parallel)])
def test_ctrl_c_ends_every_trial_and_the_study_as_killed(store: Store, tmp_path: Path, jobs: int) -> None:
    printed = run_program(store.uri, tmp_path, f"JOBS = {jobs}\n{INTERRUPTED}")
    study = study_of(store.uri, "interrupted")
    assert "INTERRUPTED None" in printed
    assert list(study.statuses().values()) == ["FINISHED"] * 2 + ["KILLED"] * jobs
    assert study.trials["trial_0003"].data.tags["hpo.ended_because"] == "interrupted"
    assert study.parent.info.status == "KILLED"
    assert study.parent.data.metrics["completed_trials"] == 2
    assert study.parent.data.metrics["failed_trials"] == jobs
    assert "hpo_trials_history.csv" in study.artifacts(study.parent.info.run_id)


UNINTERRUPTIBLE = """
from mlflow_sysmetrics.training.hpo import trials
trials._GRACE_SECONDS = 0.2
under_way = threading.Barrier(3)
hold = threading.Lock()
hold.acquire()

def press():
    under_way.wait(60)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()

def objective(trial, params):
    under_way.wait(60)
    hold.acquire()  # a C call that no exception interrupts
    return 1.0

runner = OptunaRunner("uninterruptible", metric="score")
try:
    runner.optimize(objective, 20, SPACE, n_jobs=2)
except KeyboardInterrupt:
    states = [trial.state.name for trial in runner.study.trials]
    print("INTERRUPTED", *states, flush=True)
os._exit(0)
"""


@parallel
def test_a_trial_that_cannot_be_interrupted_is_left_behind(store: Store, tmp_path: Path) -> None:
    printed = run_program(store.uri, tmp_path, UNINTERRUPTIBLE)
    assert "INTERRUPTED FAIL FAIL" in printed
    study = study_of(store.uri, "uninterruptible")
    assert list(study.statuses().values()) == ["KILLED", "KILLED"]
    assert study.parent.info.status == "KILLED"


FAILING = """
def objective(trial, params):
    if trial.number == 3:
        raise KeyError("the last one")
    return 1.0

try:
    OptunaRunner("failing", metric="score").optimize(objective, 4, SPACE, n_jobs=JOBS)
except HPOError as error:
    print("HPOERROR", error, repr(error.__cause__))
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(4, marks=parallel)])
def test_the_failure_of_any_trial_is_raised_after_the_summary(
    store: Store, tmp_path: Path, jobs: int
) -> None:
    printed = run_program(store.uri, tmp_path, f"JOBS = {jobs}\n{FAILING}")
    assert "HPOERROR Trial 3 of study 'failing' failed: KeyError: 'the last one'." in printed
    assert "catch=(KeyError,)" in printed
    assert "KeyError('the last one')" in printed
    study = study_of(store.uri, "failing")
    assert study.statuses()["trial_0004"] == "FAILED"
    assert study.parent.info.status == "FAILED"
    assert study.parent.data.metrics["failed_trials"] == 1
    assert study.parent.data.metrics["best_score"] == 1.0


EXITING = """
def objective(trial, params):
    if trial.number == 1:
        sys.exit(3)
    return 1.0

OptunaRunner("exiting", metric="score").optimize(objective, 4, SPACE)
"""


def test_a_program_that_exits_inside_a_trial_leaves_no_run_running(store: Store, tmp_path: Path) -> None:
    run_program(store.uri, tmp_path, EXITING, status=3)
    study = study_of(store.uri, "exiting")
    assert study.statuses() == {"trial_0001": "FINISHED", "trial_0002": "FAILED"}
    assert study.parent.info.status == "FAILED"


CALLBACK = """
def after(study, trial):
    mlflow.log_metric("seen_by_callback", trial.number)
    if trial.number == 1:
        raise RuntimeError("from a callback")

try:
    OptunaRunner("callback", metric="score").optimize(
        lambda trial, params: 1.0, 2, SPACE, n_jobs=JOBS, callbacks=[after])
except HPOError as error:
    print("HPOERROR", error)
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=parallel)])
def test_a_callback_logs_to_the_run_of_the_study_and_its_failure_is_raised(
    store: Store, tmp_path: Path, jobs: int
) -> None:
    printed = run_program(store.uri, tmp_path, f"JOBS = {jobs}\n{CALLBACK}")
    assert "RuntimeError: from a callback" in printed.partition("HPOERROR")[2]
    study = study_of(store.uri, "callback")
    assert study.parent.info.status == "FAILED"
    assert {value for _, value in study.points("seen_by_callback")} == {0.0, 1.0}
