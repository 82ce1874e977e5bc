"""What a trial's run says of the trial: pure, so that it can be written late, or twice."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlflow.entities import Metric, Param, RunTag
from optuna.trial import FrozenTrial

from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.outcome import Outcome
from mlflow_sysmetrics.training.hpo.run_names import params_of, tag_value

#: The tag by which the run of a trial is found.
NUMBER = "optuna.trial_number"
STATE = "optuna.trial_state"
#: The tag that says why a trial did not complete.
ENDED_BECAUSE = "hpo.ended_because"


def params_of_trial(study_name: str, number: int, params: Mapping[str, object]) -> list[Param]:
    """Returns the parameters of a trial's run."""
    known = {
        "trial_number": str(number),
        **params_of("hpo", params),
        "study_name": tag_value(study_name)[:500],  # the shortest limit of any MLflow
    }
    return [Param(key, value) for key, value in known.items()]


def metrics_of_trial(trial: FrozenTrial, outcome: Outcome, objectives: Objectives) -> list[Metric]:
    """Returns the metrics of a trial's run: its values, and what it has reported on the way as a curve."""
    at = outcome.ended_at
    metrics = [Metric("trial/number", float(trial.number), at, 0)]
    if outcome.duration_seconds is not None:
        metrics.append(Metric("trial/duration_seconds", outcome.duration_seconds, at, 0))
    for name, value in zip(objectives.metrics, outcome.values or (), strict=False):
        metrics.append(Metric(f"trial/{name}", value, at, 0))
    metrics.extend(
        Metric("trial/intermediate_value", float(value), at, step)
        for step, value in sorted(trial.intermediate_values.items())
        if math.isfinite(value)
    )
    return metrics


def tags_of_trial(outcome: Outcome) -> list[RunTag]:
    """Returns the tags that say how a trial has ended."""
    tags = [RunTag(STATE, outcome.state.name)]
    if outcome.reason is not None:
        tags.append(RunTag(ENDED_BECAUSE, tag_value(outcome.reason)))
    return tags
