"""A tracking server in memory that can fail any call, or do the work and lose the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_sysmetrics.mlflow_api.stores import StoredExperiment, StoredRun


class FakeServer:
    """Stands in for a `Store` and a `Removal`.

    Attributes:
        fails: method name -> exception raised instead of acting.
        lost: method name -> exception raised once, after acting.
        slept: the waits, in seconds.
        experiments: all experiments by name, deleted ones included.
        runs: runs by id; deleting a run removes it.
    """

    status_code = None

    def __init__(self) -> None:
        self.experiments: dict[str, StoredExperiment] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, BaseException] = {}
        self.lost: dict[str, BaseException] = {}
        self.slept: list[float] = []

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return self._failing(name, found) if callable(found) and not name.startswith("_") else found

    def _failing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name in self.fails:
                raise self.fails[name]
            answer = method(*arguments)
            if name in self.lost:
                raise self.lost.pop(name)
            return answer

        return call

    def reach(self, seconds: float) -> None:
        """Succeeds."""

    def open(self, seconds: float) -> None:
        """Succeeds."""

    def version(self, seconds: float) -> str:
        sys.stdout.write("View run at http://tracking:5000/#/experiments/1\n")  # MLflow prints this
        return "3.17.2"

    def experiment_named(self, name: str, seconds: float) -> StoredExperiment | None:
        return self.experiments.get(name)

    def experiment(self, experiment_id: str, seconds: float) -> StoredExperiment:
        return next(one for one in self.experiments.values() if one.experiment_id == experiment_id)

    def create_experiment(self, name: str, seconds: float) -> None:
        self.experiments[name] = StoredExperiment(str(len(self.experiments) + 1), name, "active")

    def run_tagged(self, experiment_id: str, key: str, value: str, seconds: float) -> str | None:
        return next((run_id for run_id, run in self.runs.items() if run["tags"].get(key) == value), None)

    def create_run(
        self, experiment_id: str, name: str | None, tags: Mapping[str, str], seconds: float
    ) -> str:
        self.runs["run-1"] = {"experiment": experiment_id, "tags": tags, "status": "RUNNING", "metrics": {}}
        return "run-1"

    def run(self, run_id: str, seconds: float) -> StoredRun:
        run = self.runs[run_id]
        return StoredRun(
            run_id, run["experiment"], run["status"], "active", None, 0, None, run["metrics"], run["tags"]
        )

    def set_status(self, run_id: str, status: str, end_time: int | None, seconds: float) -> None:
        self.runs[run_id]["status"] = status

    def log(self, run_id: str, metric: tuple[str, float], params: Any, tags: Any, seconds: float) -> None:
        self.runs[run_id]["metrics"] = dict([metric])

    def delete_run(self, run_id: str, seconds: float) -> None:
        del self.runs[run_id]

    def has_runs(self, experiment_id: str, seconds: float) -> bool:
        return any(run["experiment"] == experiment_id for run in self.runs.values())

    def rename_experiment(self, experiment_id: str, name: str, seconds: float) -> None:
        (old,) = [one for one in self.experiments.values() if one.experiment_id == experiment_id]
        del self.experiments[old.name]
        self.experiments[name] = StoredExperiment(experiment_id, name, "active")

    def delete_experiment(self, experiment_id: str, seconds: float) -> None:
        (old,) = [one for one in self.experiments.values() if one.experiment_id == experiment_id]
        self.experiments[old.name] = StoredExperiment(experiment_id, old.name, "deleted")

    @property
    def active(self) -> list[str]:
        """Names of experiments that are not deleted."""
        return [one.name for one in self.experiments.values() if one.lifecycle_stage == "active"]
