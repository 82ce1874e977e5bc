"""What the run of a study says in the end: counts, curve, best parameters, and the artifacts."""

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

from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded, params_of, trial_run_name, write
from mlflow_sysmetrics.training.hpo.study_run import StudyRun, best_curve, best_trial_of

# FOLDED history: The trials of a study as a table.


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
                trial.user_attrs.get(outcome.RUN, ""),
                trial.user_attrs.get(outcome.ERROR, ""),
            ]
        )
    return written.getvalue()


# FOLDED drawing: The history of a study, drawn with plotly.
# FOLDED
# FOLDED  Not by `optuna.visualization`, which imports Matplotlib and scikit-learn too: half a second, for a few dots.

_THREE = 3  # objectives make a space; more cannot be drawn


def history_page(study: optuna.Study, objectives: Objectives, include_plotlyjs: bool | str) -> str | None:  # noqa: FBT001 - plotly's
    """Returns the study's history as a page of HTML; None where plotly cannot draw it, with one warning."""
    try:
        needed("plotly", extra="hpo", by="hpo_optimization_history.html")
        draw = import_module("plotly.graph_objects")
        figures = _figures(draw, study, objectives)
        drawn = [
            figure.to_html(full_html=False, include_plotlyjs=include_plotlyjs if index == 0 else False)
            for index, figure in enumerate(figures)
        ]
    except Exception as error:  # noqa: BLE001 - plotly's, and what it imports: a picture is not worth a study
        _log.warning("mlflow-sysmetrics: hpo_optimization_history.html is left out: %s", error)
        return None
    body = "\n".join(drawn)
    return f'<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'


def _figures(draw: ModuleType, study: optuna.Study, objectives: Objectives) -> list[Any]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not objectives.several:
        return [_history(draw, study, trials, 0, objectives)]
    histories = [_history(draw, study, trials, index, objectives) for index in range(len(objectives.metrics))]
    return (
        histories
        if len(objectives.metrics) > _THREE
        else [_front_of_drawing(draw, study, trials, objectives), *histories]
    )


def _history(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], index: int, objectives: Objectives
) -> Any:
    """Returns the values of one objective over the trials; of the only one, also the best so far."""
    name = objectives.metrics[index]
    numbers = [trial.number for trial in trials]
    values = [trial.values[index] for trial in trials]
    figure = draw.Figure(
        [draw.Scatter(x=numbers, y=values, text=_texts(trials), mode="markers", name=name)],
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


def _front_of_drawing(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Objectives
) -> Any:
    """Returns two or three objectives against each other, with the front that no trial is better than."""
    names = objectives.metrics
    figure = draw.Figure(layout={"title": f"Pareto front of {study.study_name}"})
    for some, label in ((trials, "trials"), (study.best_trials, "front")):
        axes = [[trial.values[index] for trial in some] for index in range(len(names))]
        looks = {"text": _texts(some), "mode": "markers", "name": label}
        if len(names) == _THREE:
            figure.add_scatter3d(x=axes[0], y=axes[1], z=axes[2], **looks)
        else:
            figure.add_scatter(x=axes[0], y=axes[1], **looks)
    if len(names) == _THREE:
        titles = {
            axis: {"title": name} for axis, name in zip(("xaxis", "yaxis", "zaxis"), names, strict=True)
        }
        return figure.update_layout(scene=titles)
    return figure.update_xaxes(title=names[0]).update_yaxes(title=names[1])


def _texts(trials: Sequence[FrozenTrial]) -> list[str]:
    """Returns what is shown of each trial when it is pointed at."""
    return [
        "<br>".join([f"trial {trial.number}", *(f"{name}: {value}" for name, value in trial.params.items())])
        for trial in trials
    ]


_BEST = "best_hpo"
_log = logging.getLogger("mlflow_sysmetrics")


def write_summary(study_run: StudyRun, include_plotlyjs: bool | str) -> bool:  # noqa: FBT001 - plotly's
    """Writes all that is to say of a study as it is now; returns whether the server has taken it."""
    page = history_page(study_run.study, study_run.objectives, include_plotlyjs)
    try:
        study_run.tell_end()
        study_run.calls.make(lambda: _write_best(study_run))
        study_run.calls.make(lambda: _write_artifacts(study_run, page))
    except NotRecorded:
        return False
    return True


def _write_best(study_run: StudyRun) -> None:
    best = None if study_run.objectives.several else best_trial_of(study_run.study)
    if best is None:
        return
    client, run_id = study_run.client, study_run.run_id
    params = params_of(_BEST, best.params)
    data = client.get_run(run_id).data
    said = {key: value for key, value in data.params.items() if key.startswith(f"{_BEST}/")}
    # MLflow never changes a parameter, so these tell the best at the first end; the tags tell it as of now.
    for key in data.tags:
        if key.startswith(f"{_BEST}/") and key not in params:
            client.delete_tag(run_id, key)
    write(client, run_id, tags=[RunTag(key, value) for key, value in params.items()])
    if not said:
        write(client, run_id, params=[Param(key, value) for key, value in params.items()])
    elif said != params:
        _log.warning(
            "mlflow-sysmetrics: the study has found better since its run %s was first ended. MLflow does not "
            "change parameters: its tags %s/... have the best ones, not its parameters.",
            run_id,
            _BEST,
        )


def _write_artifacts(study_run: StudyRun, page: str | None) -> None:
    client, run_id = study_run.client, study_run.run_id
    client.log_text(run_id, table(study_run.trials(), study_run.objectives), "hpo_trials_history.csv")
    if page is not None:
        client.log_text(run_id, page, "hpo_optimization_history.html")
    if study_run.objectives.several:
        client.log_text(run_id, _front(study_run), "hpo_pareto_front.json")


def _front(study_run: StudyRun) -> str:
    """Returns the trials that no other is better than in every objective, as JSON."""
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
