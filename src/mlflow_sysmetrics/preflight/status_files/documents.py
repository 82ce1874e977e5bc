"""The files beside a run, `mlflow_status.json` and `mlflow_info.json`: what they say, as JSON of schema 1.

The JSON Schema files in docs/ describe both for readers without this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, cast, get_args

from mlflow_sysmetrics.errors import Attempt
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

Stage = Literal["initializing", "waiting", "initialized", "failed", "completed"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SCHEMA = 1  #: increase it when a key is added, removed or changed
_TEXT_KEYS = (
    "tracking_uri",
    "experiment_name",
    "experiment_id",
    "run_id",
    "error",
    "error_type",
    "client_version",
    "server_version",
)


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


def status_document(status: JobStatus) -> dict[str, Any]:
    """Returns a status as a JSON object, with secrets masked once more."""
    uri = status.tracking_uri or ""
    return {
        "schema": SCHEMA,
        "stage": status.stage,
        "tracking_uri": None if status.tracking_uri is None else redacted(uri),
        "experiment_name": status.experiment_name,
        "experiment_id": status.experiment_id,
        "run_id": status.run_id,
        "step": status.step,
        "error": _clean(status.error, uri),
        "error_type": status.error_type,
        "attempts": [
            {
                "n": one.n,
                "step": one.step,
                "at": _written(one.at),
                "seconds": round(one.seconds, 3),
                "status_code": one.status_code,
                "error": _clean(one.error, uri),
            }
            for one in status.attempts
        ],
        "client_version": status.client_version,
        "server_version": status.server_version,
        "timestamp": _written(status.timestamp),
    }


def run_document(run: RunInfo) -> dict[str, Any]:
    """Returns the description of a run as a JSON object."""
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "experiment_name": run.experiment_name,
        "tracking_uri": redacted(run.tracking_uri),
        "run_name": run.run_name,
        "status": run.status,
        "started_at": None if run.started_at is None else _written(run.started_at),
        "ended_at": None if run.ended_at is None else _written(run.ended_at),
    }


def status_from(document: object) -> JobStatus:
    """Returns the status that a JSON object describes.

    A newer schema may have unknown keys and stages, or lack known keys; what this version knows is read.

    Raises:
        ValueError: it is not a status; says what is wrong with it in one clause.
    """
    if not isinstance(document, Mapping):
        raise ValueError("it must be a JSON object")
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < SCHEMA:
        raise ValueError(f'its "schema" must be an integer >= {SCHEMA}, got {schema!r}')
    stage = document.get("stage")
    if not isinstance(stage, str) or (schema == SCHEMA and stage not in STAGES):
        raise ValueError(f'its "stage" must be one of {", ".join(STAGES)}, got {stage!r}')
    timestamp = _read(document.get("timestamp"))
    if timestamp is None:
        raise ValueError(
            f'its "timestamp" must be a time with an offset from UTC, got {document.get("timestamp")!r}'
        )
    listed = document.get("attempts")
    attempts = [_attempt(one) for one in listed] if isinstance(listed, list) else []
    texts = {name: _text(document.get(name)) for name in _TEXT_KEYS}
    return JobStatus(
        stage=cast("Stage", stage),  # a newer schema may have more stages
        step=_integer(document.get("step")),
        attempts=tuple(one for one in attempts if one is not None),
        timestamp=timestamp,
        **texts,
    )


def _attempt(document: object) -> Attempt | None:
    """Returns an attempt; None if a required key is missing or invalid."""
    if not isinstance(document, Mapping):
        return None
    n, step, at = _integer(document.get("n")), _integer(document.get("step")), _read(document.get("at"))
    seconds = document.get("seconds")
    if n is None or step is None or at is None or not isinstance(seconds, (int, float)):
        return None
    return Attempt(
        n, step, at, float(seconds), _integer(document.get("status_code")), _text(document.get("error"))
    )


def _clean(text: str | None, tracking_uri: str) -> str | None:
    return None if text is None else cleaned(text, tracking_uri)


def _written(moment: datetime) -> str:
    """Returns a moment in UTC with its offset; as in Python, one without an offset is local time."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def _read(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not parse the Z
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.astimezone(timezone.utc)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
