"""The trials of a study as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.training.hpo import marks
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.run_names import trial_run_name


def table(trials: Sequence[FrozenTrial], objectives: Objectives) -> str:
    """Returns all trials that were begun as CSV: numbers, states, values, times, parameters, runs."""
    begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
    names = sorted({name for trial in begun for name in trial.params})
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(
        ["number", "run_name", "state", *objectives.metrics, "started", "ended", "duration_seconds"]
        + [f"hpo/{name}" for name in names]
        + ["run_id", "error"]
    )
    for trial in begun:
        # Optuna keeps what a pruned trial has reported last as its value; a study of several may have none.
        values = list(trial.values or ()) + [""] * (len(objectives.metrics) - len(trial.values or ()))
        seconds = "" if trial.duration is None else trial.duration.total_seconds()
        rows.writerow(
            [
                trial.number,
                trial_run_name(trial.number),
                trial.state.name,
                *values,
                trial.datetime_start,
                trial.datetime_complete,
                seconds,
                *(trial.params.get(name, "") for name in names),
                trial.user_attrs.get(marks.RUN, ""),
                trial.user_attrs.get(marks.ERROR, ""),
            ]
        )
    return written.getvalue()
