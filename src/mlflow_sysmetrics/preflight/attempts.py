"""One attempt to reach the tracking server, and the result of a preflight that lists them."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_sysmetrics.errors import Attempt

__all__ = ["Attempt", "PreflightResult"]


@dataclass(frozen=True)
class PreflightResult:
    """A run that can be logged to, and what it took to get it.

    Attributes:
        run_id: id of the run, which is RUNNING and not yet active in any thread.
        experiment_id: id of its experiment.
        experiment_name: name of its experiment.
        tracking_uri: without user, password and query.
        client_version: version of MLflow in this program.
        server_version: version of MLflow on the server; None without a server, or if it does not report one.
        attempts: every request, oldest first.
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
