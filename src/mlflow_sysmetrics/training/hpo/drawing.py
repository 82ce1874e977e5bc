"""The history of a study, drawn with plotly.

Not by `optuna.visualization`, which imports Matplotlib and scikit-learn too: half a second, for a few dots.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.training.extras import needed
from mlflow_sysmetrics.training.hpo.objectives import Objectives
from mlflow_sysmetrics.training.hpo.progress import best_curve

_THREE = 3  # objectives make a space; more cannot be drawn
_log = logging.getLogger("mlflow_sysmetrics")


def page(study: optuna.Study, objectives: Objectives, include_plotlyjs: bool | str) -> str | None:  # noqa: FBT001 - plotly's
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
        else [_front(draw, study, trials, objectives), *histories]
    )


def _history(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], index: int, objectives: Objectives
) -> Any:  # noqa: ANN401 - of plotly, which has no types
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


def _front(
    draw: ModuleType, study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Objectives
) -> Any:  # noqa: ANN401 - as above
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
