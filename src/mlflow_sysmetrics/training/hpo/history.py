"""The artifacts of a study: its trials as a table, and its history as a page."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.training.hpo import marks
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.run_names import trial_run_name

_DRAWABLE_FRONTS = (2, 3)
_log = logging.getLogger("mlflow_sysmetrics")


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


def drawable() -> bool:
    """Returns whether plotly is there; the first time this loads it, which takes half a second."""
    return optuna.visualization.is_available()


def page(study: optuna.Study, objectives: Objectives, include_plotlyjs: bool | str) -> str | None:  # noqa: FBT001 - plotly's
    """Returns the study's history drawn by Optuna and plotly; None where they cannot, with one warning."""
    if not drawable():
        _log.warning(
            "mlflow-sysmetrics: hpo_optimization_history.html is left out, because plotly is not installed: "
            'pip install "mlflow-sysmetrics[hpo]"'
        )
        return None
    try:
        figures = _figures(study, objectives)
        drawn = [
            figure.to_html(full_html=False, include_plotlyjs=include_plotlyjs if index == 0 else False)
            for index, figure in enumerate(figures)
        ]
    except Exception as error:  # noqa: BLE001 - Optuna's and plotly's: a picture is not worth a study
        _log.warning("mlflow-sysmetrics: hpo_optimization_history.html is left out: %s", error)
        return None
    body = "\n".join(drawn)
    return f'<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'


def _figures(study: optuna.Study, objectives: Objectives) -> list[Any]:  # of plotly, which may be absent
    draw = optuna.visualization
    names = list(objectives.metrics)
    if not objectives.several:
        return [draw.plot_optimization_history(study, target_name=names[0])]
    figures: list[Any] = [
        draw.plot_optimization_history(study, target=_value(index), target_name=name)
        for index, name in enumerate(names)
    ]
    if len(names) in _DRAWABLE_FRONTS:
        figures.insert(0, draw.plot_pareto_front(study, target_names=names))
    return figures


def _value(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[index]
