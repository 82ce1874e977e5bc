"""What the files beside a run say: `mlflow_status.json` and `mlflow_info.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal, get_args

from mlflow_sysmetrics.errors import Attempt

Stage = Literal["initializing", "waiting", "initialized", "failed", "completed"]
STAGES: tuple[Stage, ...] = get_args(Stage)


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The state of a training and its tracking server.

    What is not known yet is None.

    Attributes:
        stage: "initializing" (the preflight is under way), "waiting" (for a server that may come up),
            "initialized" (the run can be logged to), "failed" (see `error`), "completed" (the program has
            ended).
        tracking_uri: without user, password and query.
        experiment_name: as requested, later as found.
        experiment_id: id of the experiment.
        run_id: id of the run.
        step: the preflight's step that is under way or failed, 0 to 4.
        error: what went wrong and what to do about it, without secrets.
        error_type: the class of the error.
        attempts: every request so far, oldest first.
        client_version: version of MLflow in the program.
        server_version: version of MLflow on the server.
        timestamp: when this was written, in UTC.
    """

    stage: Stage
    tracking_uri: str | None = None
    experiment_name: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None
    step: int | None = None
    error: str | None = None
    error_type: str | None = None
    attempts: tuple[Attempt, ...] = ()
    client_version: str | None = None
    server_version: str | None = None
    timestamp: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Which run a program has, and how it ended.

    Attributes:
        run_id: id of the run.
        experiment_id: id of its experiment.
        experiment_name: name of its experiment.
        tracking_uri: without user, password and query.
        run_name: None if the run has none.
        status: as MLflow names it: RUNNING, FINISHED, FAILED, KILLED.
        started_at: in UTC.
        ended_at: in UTC; None while it runs.
    """

    run_id: str
    experiment_id: str
    experiment_name: str
    tracking_uri: str
    run_name: str | None = None
    status: str = "RUNNING"
    started_at: datetime | None = None
    ended_at: datetime | None = None
