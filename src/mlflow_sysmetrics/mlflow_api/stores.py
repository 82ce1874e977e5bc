"""What the preflight asks of a tracking store of any kind, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

ACTIVE = "active"
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment of the store; the lifecycle stage is "active" or "deleted"."""

    experiment_id: str
    name: str
    lifecycle_stage: str


@dataclass(frozen=True)
class StoredRun:
    """A run of the store; times are in milliseconds since 1970."""

    run_id: str
    experiment_id: str
    status: str
    lifecycle_stage: str
    run_name: str | None
    start_time: int
    end_time: int | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Store(Protocol):
    """Answers each question with one attempt, within the given seconds.

    Every method raises `Fault` if there is no answer, or not the expected one.
    """

    status_code: int | None  #: of HTTP, of the last answer; None if there was none

    def reach(self, seconds: float) -> None:
        """Returns if the store is up."""

    def open(self, seconds: float) -> None:
        """Creates what the store needs: the tables of a database."""

    def version(self, seconds: float) -> str | None:
        """Returns the version of MLflow at the other end; None if there is none, or it does not report it."""

    def experiment_named(self, name: str, seconds: float) -> StoredExperiment | None:
        """Returns the experiment of that name, even if it is deleted; None if there is none."""

    def experiment(self, experiment_id: str, seconds: float) -> StoredExperiment:
        """Returns an experiment, even if it is deleted."""

    def create_experiment(self, name: str, seconds: float) -> None:
        """Creates an experiment."""

    def run_tagged(self, experiment_id: str, key: str, value: str, seconds: float) -> str | None:
        """Returns the id of the run in an experiment that has a tag; None if there is none."""

    def create_run(
        self, experiment_id: str, name: str | None, tags: Mapping[str, str], seconds: float
    ) -> str:
        """Starts a run now and returns its id."""

    def run(self, run_id: str, seconds: float) -> StoredRun:
        """Returns a run."""

    def set_status(self, run_id: str, status: str, end_time: int | None, seconds: float) -> None:
        """Changes the status of a run, and its end in milliseconds since 1970."""

    def log(
        self,
        run_id: str,
        metric: tuple[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Writes a metric at step 0, parameters and tags; at most a hundred of each."""
