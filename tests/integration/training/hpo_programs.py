"""Studies run by programs in their own interpreter, and what they leave on the server."""

from __future__ import annotations

import os
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import pytest
from programs import PATIENT, PREAMBLE, QUIET, Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own, about the libraries that it finds
    from mlflow_sysmetrics.mlflow_api.fluent_state import one_stack_for_all_threads

parallel = pytest.mark.skipif(
    one_stack_for_all_threads(), reason="in this MLflow, as in 2.8, all threads share one active run"
)
SECONDS = 300  # a test's study takes 5 s; a busy machine takes longer
SPACE = '{"x": {"type": "float", "low": -1.0, "high": 1.0}}'
IMPORTS = """
import json, signal, optuna
from mlflow_sysmetrics.errors import HPOError
from mlflow_sysmetrics.training.hpo import OptunaRunner
"""


def environ_for(uri: str, **environ: str) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": uri, **QUIET, **PATIENT, **environ}


def written(directory: Path, code: str, name: str = "study.py") -> Path:
    """Writes a program and returns its path; `SPACE` is defined in it."""
    path = directory / name
    path.write_text(f"{PREAMBLE}{IMPORTS}SPACE = {SPACE}\n" + textwrap.dedent(code))
    return path


def run_program(
    uri: str, directory: Path, code: str, *, status: int = 0, own_interpreter: bool = False, **environ: str
) -> str:
    """Runs a program to its end and returns what it printed; `forks` describes how."""
    path = written(directory, code)
    run = forks.run_interpreter if own_interpreter else forks.run
    done = run([path], env=environ_for(uri, **environ), cwd=directory, timeout=SECONDS)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Study:
    """The runs of a study on the server."""

    uri: str
    parent: Any
    trials: dict[str, Any]

    def artifact(self, run_id: str, name: str, to: Path) -> str:
        import mlflow.artifacts

        found = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=name, dst_path=str(to), tracking_uri=self.uri
        )
        return Path(found).read_text()

    def artifacts(self, run_id: str) -> set[str]:
        return {one.path for one in Store(self.uri).client.list_artifacts(run_id)}

    def statuses(self) -> dict[str, str]:
        return {name: run.info.status for name, run in self.trials.items()}

    def points(self, key: str) -> list[tuple[int, float]]:
        """Returns step and value of each point of a metric of the study's run, ordered by step."""
        history = Store(self.uri).client.get_metric_history(self.parent.info.run_id, key)
        return sorted((one.step, one.value) for one in history)


def study_of(uri: str, name: str) -> Study:
    """Returns the only study of that name; fails if there are two, or two runs of one trial."""
    client = Store(uri).client
    ids = [one.experiment_id for one in client.search_experiments()]
    (parent,) = client.search_runs(ids, f"tags.`mlflow.runName` = 'HPO_{name}'")
    children = client.search_runs(ids, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    trials = {run.data.tags["mlflow.runName"]: run for run in children}
    assert len(trials) == len(children)
    return Study(uri, parent, dict(sorted(trials.items())))
