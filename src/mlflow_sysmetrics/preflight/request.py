"""What is asked of a preflight, validated, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_sysmetrics.errors import Attempt, SettingsError


@dataclass(frozen=True)
class PreflightRequest:
    """Which run the caller wants, and where.

    Attributes:
        tracking_uri: the server; None for MLflow's current one.
        experiment_name: name of the experiment; None for MLflow's current one.
        run_name: name of the run; None for one that MLflow generates.
        tags: tags of the run.
        params: parameters of the run.
        run_id: id of a run to resume; None for a new one.
        check_artifacts: whether an artifact is written and read back.
    """

    tracking_uri: str | None
    experiment_name: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    run_id: str | None = None
    check_artifacts: bool = False


def request_from(
    *,
    experiment_name: str | None = None,
    run_name: str | None = None,
    tracking_uri: str | os.PathLike[str] | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    check_artifacts: bool = False,
) -> PreflightRequest:
    """Returns the arguments of `preflight` as a request, with tags and parameters as strings.

    Raises:
        SettingsError: an argument has the wrong type.
    """
    for name, value in (("experiment_name", experiment_name), ("run_name", run_name), ("run_id", run_id)):
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{name} must be a string or None, got {value!r}")
    for name, given in (("tags", tags), ("params", params)):
        if given is not None and not isinstance(given, Mapping):
            raise SettingsError(f'{name} must be a dictionary such as {{"name": "value"}}, got {given!r}')
    if tracking_uri is not None and not isinstance(tracking_uri, str | os.PathLike):
        raise SettingsError(f"tracking_uri must be a string, a path or None, got {tracking_uri!r}")
    return PreflightRequest(
        tracking_uri=None if tracking_uri is None else str(tracking_uri),
        experiment_name=experiment_name,
        run_name=run_name,
        tags={str(key): str(value) for key, value in (tags or {}).items()},
        params={str(key): str(value) for key, value in (params or {}).items()},
        run_id=run_id,
        check_artifacts=check_artifacts,
    )


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
