"""One try at a tracking server, as errors and status files list it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_sysmetrics.errors import Attempt

__all__ = ["Asked", "Attempt", "PreflightResult"]

# FOLDED asked: What the caller of a preflight wants.


@dataclass(frozen=True)
class Asked:
    """What the caller wants.

    Attributes:
        tracking_uri: where; None for the one in force.
        experiment_name: None for the one in force.
        run_name: None for one that MLflow makes up.
        tags: of the run.
        params: of the run.
        run_id: of a run to resume; None for a new one.
        check_artifacts: whether an artifact is written and read back.
    """

    tracking_uri: str | None
    experiment_name: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    check_artifacts: bool = False


@dataclass(frozen=True)
class PreflightResult:
    """A run that can be logged to, and what it took to get it.

    Attributes:
        run_id: of the run, which is RUNNING and not active in any thread yet.
        experiment_id: of the experiment it is in.
        experiment_name: of the same.
        tracking_uri: without user, password and query.
        client_version: of MLflow here.
        server_version: of MLflow there; None where there is no server, or it does not tell.
        attempts: every try, oldest first.
        elapsed_seconds: from the call to the return.
    """

    run_id: str
    experiment_id: str
    experiment_name: str
    tracking_uri: str
    client_version: str
    server_version: str | None
    attempts: tuple[Attempt, ...]
    elapsed_seconds: float
