"""What the run of a study has at the end: counts, curve, best parameters, and the artifacts."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import optuna
from mlflow.entities import Param, RunTag
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.hpo import optuna_study
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun, best_curve, best_trial_of
from mlflow_sysmetrics.training.run_writes import params_of

_BEST = "best_hpo"
_TABLE = "hpo_trials_history.csv"
_PAGE = "hpo_optimization_history.html"
_FRONT = "hpo_pareto_front.json"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also full-width
_MOST_AXES = 3  # a Pareto front with more objectives cannot be drawn
_log = logging.getLogger("mlflow_sysmetrics")


def write_summary(study_run: StudyRun, *, include_plotlyjs: bool | str) -> bool:
    """Writes the summary of a study as it is now; returns whether the server accepted all of it."""
    page = history_page(study_run.study, study_run.objectives, include_plotlyjs=include_plotlyjs)
    try:
        study_run.log_final_progress()
        _write_best(study_run)
        study_run.calls.make(lambda: _write_artifacts(study_run, page))
    except NotRecorded:
        return False
    return True


def _write_best(study_run: StudyRun) -> None:
    best = None if study_run.objectives.several else best_trial_of(study_run.study)
    if best is None:
        return
    make, client, run_id = study_run.calls.make, study_run.client, study_run.run_id
    params = params_of(_BEST, best.params)
    data = make(lambda: client.get_run(run_id)).data
    existing = {key: value for key, value in data.params.items() if key.startswith(f"{_BEST}/")}
    # MLflow never changes a parameter, so the parameters hold the best trial when the study first ended. The
    # tags hold the best trial now.
    outdated = [key for key in data.tags if key.startswith(f"{_BEST}/") and key not in params]
    make(lambda: [client.delete_tag(run_id, key) for key in outdated])
    study_run.write(run_id, tags=[RunTag(key, value) for key, value in params.items()])
    if not existing:
        study_run.write(run_id, params=[Param(key, value) for key, value in params.items()])
    elif existing != params:
        _log.warning(
            "mlflow-sysmetrics: the study found a better trial after its run %s had ended once. MLflow "
            "cannot change parameters: read the best ones from the tags %s/*, not from the parameters.",
            run_id,
            _BEST,
        )


def _write_artifacts(study_run: StudyRun, page: str | None) -> None:
    client, run_id = study_run.client, study_run.run_id
    client.log_text(run_id, trials_table(study_run.trials(), study_run.objectives), _TABLE)
    if page is not None:
        client.log_text(run_id, page, _PAGE)
    if study_run.objectives.several:
        client.log_text(run_id, _front_json(study_run), _FRONT)


def _front_json(study_run: StudyRun) -> str:
    """Returns the trials of the Pareto front as JSON."""
    names = study_run.objectives.metrics
    front = [
        {
            "number": trial.number,
            "values": dict(zip(names, trial.values, strict=True)),
            "params": trial.params,
        }
        for trial in sorted(study_run.study.best_trials, key=lambda trial: trial.number)
    ]
    return json.dumps(front, indent=2, default=str) + "\n"


def trials_table(trials: Sequence[FrozenTrial], objectives: Objectives) -> str:
    """Returns all started trials as CSV: numbers, states, values, times, parameters, runs."""
    started = [trial for trial in trials if trial.state is not TrialState.WAITING]
    names = sorted({name for trial in started for name in trial.params})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["number", "run_name", "state", *map(_cell, objectives.metrics)]
        + ["started", "ended", "duration_seconds"]
        + [f"hpo/{name}" for name in names]
        + ["run_id", "error"]
    )
    for trial in started:
        # A pruned trial has its last reported value in Optuna; with several objectives it has none.
        values = list(trial.values or ()) + [""] * (len(objectives.metrics) - len(trial.values or ()))
        seconds = "" if trial.duration is None else trial.duration.total_seconds()
        rows.writerow(
            [
                trial.number,
                optuna_study.trial_run_name(trial.number),
                trial.state.name,
                *values,
                trial.datetime_start,
                trial.datetime_complete,
                seconds,
                *(_cell(trial.params.get(name, "")) for name in names),
                trial.user_attrs.get(optuna_study.TRIAL_RUN_ID, ""),
                _cell(trial.user_attrs.get(optuna_study.ERROR, "")),
            ]
        )
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Returns what a spreadsheet shows as the given value: an apostrophe precedes a text like a formula.

    Numbers stay as they are, also negative ones and those in texts. Source: OWASP, CSV injection.
    """
    text = str(value)
    if not text.startswith(_FORMULA):
        return value
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return value


def history_page(study: optuna.Study, objectives: Objectives, *, include_plotlyjs: bool | str) -> str | None:
    """Returns the history of a study as an HTML page; None, with one warning, if plotly cannot draw it.

    `optuna.visualization` is not used: it imports Matplotlib and scikit-learn, which takes half a second.
    """
    try:
        needed("plotly", extra="hpo", by=_PAGE)
        draw = import_module("plotly.graph_objects")
        figures = [
            figure.to_html(full_html=False, include_plotlyjs=include_plotlyjs if index == 0 else False)
            for index, figure in enumerate(_figures(draw, study, objectives))
        ]
    except Exception as error:  # noqa: BLE001 - plotly's or its imports': a page must not cost a study its end
        reraise_interruption(error)
        _log.warning("mlflow-sysmetrics: %s is left out: %s", _PAGE, cleaned(str(error)))
        return None
    body = "\n".join(figures)
    return f'<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'


def _figures(draw: ModuleType, study: optuna.Study, objectives: Objectives) -> list[Any]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    histories = [
        _history_figure(draw, study, trials, index, objectives) for index in range(len(objectives.metrics))
    ]
    if 1 < len(objectives.metrics) <= _MOST_AXES:
        return [_front_figure(draw, study, trials, objectives), *histories]
    return histories


def _history_figure(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], index: int, objectives: Objectives
) -> Any:
    """Draws the values of one objective over the trials; for a single objective also the best so far."""
    name = objectives.metrics[index]
    numbers = [trial.number for trial in trials]
    values = [trial.values[index] for trial in trials]
    figure = draw.Figure(
        [draw.Scatter(x=numbers, y=values, text=_hover_texts(trials), mode="markers", name=name)],
        {"title": f"Optimization history of {study.study_name}"},
    )
    if not objectives.several:
        best = list(best_curve(trials, study.direction, settled_only=False))
        figure.add_scatter(
            x=[point.number for point in best],
            y=[point.value for point in best],
            mode="lines",
            name="best so far",
        )
    return figure.update_xaxes(title="trial number").update_yaxes(title=name)


def _front_figure(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Objectives
) -> Any:
    """Draws two or three objectives against each other, with the Pareto front."""
    names = objectives.metrics
    figure = draw.Figure(layout={"title": f"Pareto front of {study.study_name}"})
    for some, label in ((trials, "trials"), (study.best_trials, "front")):
        axes = [[trial.values[index] for trial in some] for index in range(len(names))]
        style = {"text": _hover_texts(some), "mode": "markers", "name": label}
        if len(names) == _MOST_AXES:
            figure.add_scatter3d(x=axes[0], y=axes[1], z=axes[2], **style)
        else:
            figure.add_scatter(x=axes[0], y=axes[1], **style)
    if len(names) == _MOST_AXES:
        titles = {
            axis: {"title": name} for axis, name in zip(("xaxis", "yaxis", "zaxis"), names, strict=True)
        }
        return figure.update_layout(scene=titles)
    return figure.update_xaxes(title=names[0]).update_yaxes(title=names[1])


def _hover_texts(trials: Sequence[FrozenTrial]) -> list[str]:
    return [
        "<br>".join([f"trial {trial.number}", *(f"{name}: {value}" for name, value in trial.params.items())])
        for trial in trials
    ]
