"""What the run of a study says in the end: counts, curve, best parameters, and the artifacts."""

from __future__ import annotations

import json
import logging

from mlflow.entities import Param, RunTag

from mlflow_sysmetrics.training.hpo import drawing, history
from mlflow_sysmetrics.training.hpo.run_names import params_of
from mlflow_sysmetrics.training.hpo.run_writer import write
from mlflow_sysmetrics.training.hpo.store_calls import NotRecorded
from mlflow_sysmetrics.training.hpo.study_run import StudyRun, best_trial_of

_BEST = "best_hpo"
_log = logging.getLogger("mlflow_sysmetrics")


def write_summary(study_run: StudyRun, include_plotlyjs: bool | str) -> bool:  # noqa: FBT001 - plotly's
    """Writes all that is to say of a study as it is now; returns whether the server has taken it."""
    page = drawing.page(study_run.study, study_run.objectives, include_plotlyjs)
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
    client.log_text(run_id, history.table(study_run.trials(), study_run.objectives), "hpo_trials_history.csv")
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
