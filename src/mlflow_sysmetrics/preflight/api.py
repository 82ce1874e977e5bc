"""Whether a training can be tracked, found out before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.preflight.attempts import Asked, PreflightResult
from mlflow_sysmetrics.preflight.preflight_run import PreflightRun
from mlflow_sysmetrics.preflight.tries import Pace


def preflight(
    experiment_name: str | None = None,
    run_name: str | None = None,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    max_retries: int = 5,
    timeout: float = 30.0,
    backoff: Sequence[float] = (10, 20, 30),
    deadline: float = 240.0,
    check_artifacts: bool = False,
    status_path: str | os.PathLike[str] | None = None,
) -> PreflightResult:
    """Starts a run and returns once it has been written to and read back.

    The run is RUNNING and not active yet: go on with ``mlflow.start_run(run_id=result.run_id)``, or use
    `tracked_run`. The tracking URI and the experiment are then MLflow's current ones.

    Args:
        experiment_name: found or made; by default the one that `mlflow.start_run` would use.
        run_name: by default MLflow makes one up.
        tracking_uri: by default the one that is set; MLflow's own default, a local store, counts as none.
        tags: of the run, beside those that `mlflow.start_run` gives.
        params: logged to the run.
        run_id: resumes this run in place of making one; by default ``MLFLOW_RUN_ID``, as of `mlflow run`.
        max_retries: tries of each request, the first included.
        timeout: of each try, in seconds.
        backoff: seconds to wait after the first try, the second, and so on; the last one goes on. Where the
            server sends Retry-After, that counts.
        deadline: of everything, in seconds.
        check_artifacts: also writes a small artifact and reads it back.
        status_path: a directory, or the URI of an object store, where `mlflow_status.json` and
            `mlflow_info.json` go.

    Raises:
        TrackingURIError: there is no tracking URI, or it cannot be used.
        ServerUnreachableError: no MLflow answers there.
        AuthenticationError: it refuses us.
        ExperimentError: the experiment can be neither found nor made.
        RunStartError: no run can be started.
        RunVerificationError: the run was started and is not as it should be; it is ended as FAILED.
        SettingsError: an argument makes no sense.
    """
    pace = Pace(max_retries=max_retries, timeout=timeout, backoff=backoff, deadline=deadline)
    asked = asked_for(experiment_name, run_name, tracking_uri, tags, params, run_id, check_artifacts)
    return PreflightRun(asked, pace, status_path).fly()


def asked_for(  # noqa: PLR0917 - as above
    experiment_name: str | None,
    run_name: str | None,
    tracking_uri: str | os.PathLike[str] | None,
    tags: Mapping[str, str] | None,
    params: Mapping[str, object] | None,
    run_id: str | None,
    check_artifacts: bool,  # noqa: FBT001 - as above
) -> Asked:
    """Returns the arguments of `preflight` that say what is wanted, in the form that MLflow takes them.

    Raises:
        SettingsError: one of them makes no sense; says which, and what would.
    """
    for name, value in (("experiment_name", experiment_name), ("run_name", run_name), ("run_id", run_id)):
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{name} is {value!r}; it must be a string, or None")
    for name, given in (("tags", tags), ("params", params)):
        if given is not None and not isinstance(given, Mapping):
            raise SettingsError(f'{name} is {given!r}; it must be a dictionary such as {{"name": "value"}}')
    if tracking_uri is not None and not isinstance(tracking_uri, str | os.PathLike):
        raise SettingsError(f"tracking_uri is {tracking_uri!r}; it must be a string or a path, or None")
    return Asked(
        tracking_uri=None if tracking_uri is None else str(tracking_uri),
        experiment_name=experiment_name,
        run_name=run_name,
        tags={str(key): str(value) for key, value in (tags or {}).items()},
        params={str(key): str(value) for key, value in (params or {}).items()},
        run_id=run_id,
        check_artifacts=check_artifacts,
    )
