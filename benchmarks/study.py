"""What a study costs compared with one by hand: trials of a second, four at a time, and empty ones.

Usage::

    python benchmarks/study.py [--trials 8] [--jobs 4] [--seconds 1] [--rounds 3]

By hand: optuna's own `study.optimize` and a nested `mlflow.start_run` per trial that logs the same params and
metric; no end status per trial, no summary, no resume. Both sides alternate in one process, on one sqlite
file.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Trial

SPACE = {"x": {"type": "float", "low": -1.0, "high": 1.0}}


def ours(trials: int, jobs: int, seconds: float) -> None:
    """Runs a study with the runner."""
    from mlflow_sysmetrics import OptunaRunner

    def objective(_: Trial, params: dict[str, float]) -> float:
        time.sleep(seconds)
        return params["x"]

    OptunaRunner(f"study_{time.monotonic_ns()}", metric="x").optimize(
        objective, trials, SPACE, n_jobs=jobs, progress=False
    )


def by_hand(trials: int, jobs: int, seconds: float) -> None:
    """Runs a study the way it is written without the runner."""
    import mlflow
    import optuna

    with mlflow.start_run(run_name="study") as parent:

        def objective(trial: Trial) -> float:
            name = f"trial_{trial.number + 1:04d}"
            with mlflow.start_run(run_name=name, nested=True, parent_run_id=parent.info.run_id):
                x: float = trial.suggest_float("x", -1, 1)
                mlflow.log_params({"hpo/x": x, "trial_number": trial.number})
                time.sleep(seconds)
                mlflow.log_metrics({"trial/x": x, "trial/number": trial.number})
            return x

        optuna.create_study(direction="maximize").optimize(objective, trials, n_jobs=jobs)


def measured(side: Callable[[int, int, float], None], trials: int, jobs: int, seconds: float) -> float:
    """Returns the duration of one study in seconds."""
    began = time.perf_counter()
    side(trials, jobs, seconds)
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What a study costs compared with one by hand.")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a trial")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'runs.db'}"
        for side in (ours, by_hand):  # imports, and MLflow's tables
            side(1, 1, 0.0)
        print("| trials | ours | by hand | ours / by hand |\n|---|---|---|---|")
        for trials, jobs, seconds in (
            (options.trials, options.jobs, options.seconds),
            (20, 1, 0.0),
        ):
            times: dict[str, list[float]] = {"ours": [], "by hand": []}
            for _ in range(options.rounds):
                times["ours"].append(measured(ours, trials, jobs, seconds))
                times["by hand"].append(measured(by_hand, trials, jobs, seconds))
            mine, theirs = statistics.median(times["ours"]), statistics.median(times["by hand"])
            what = f"{trials} of {seconds:g} s, n_jobs={jobs}"
            print(f"| {what} | {mine:.2f} s | {theirs:.2f} s | {mine / theirs:.2f} |")


if __name__ == "__main__":
    main()
