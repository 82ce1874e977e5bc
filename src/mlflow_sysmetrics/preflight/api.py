"""The function `preflight`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.preflight.preflight_run import PreflightRun
from mlflow_sysmetrics.preflight.request import PreflightResult, request_from
from mlflow_sysmetrics.preflight.retries import RetrySchedule


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

    The run is RUNNING and not active yet: continue with ``mlflow.start_run(run_id=result.run_id)``, or use
    `tracked_run`. The tracking URI and the experiment become MLflow's current ones.

    Args:
        experiment_name: found or created; by default the one that `mlflow.start_run` would use.
        run_name: name of the run; by default MLflow generates one.
        tracking_uri: the server; by default the URI that is set. MLflow's own default, a local store, does
            not count.
        tags: tags of the run, in addition to those that `mlflow.start_run` sets.
        params: logged to the run.
        run_id: resumes this run instead of creating one; by default ``MLFLOW_RUN_ID``, set by `mlflow run`.
        max_retries: attempts of each request, including the first.
        timeout: timeout of each attempt, in seconds.
        backoff: seconds to wait after the first attempt, the second, and so on; the last one repeats. A
            Retry-After header of the server takes precedence.
        deadline: longest time for everything, in seconds, from the first request; importing MLflow does not
            count.
        check_artifacts: also writes a small artifact and reads it back.
        status_path: a directory, or the URI of an object store, for `mlflow_status.json` and
            `mlflow_info.json`.

    Raises:
        TrackingURIError: no tracking URI is set, or it cannot be used.
        ServerUnreachableError: no MLflow server responds at the URI.
        AuthenticationError: the server refuses the credentials or the request.
        ExperimentError: the experiment can be neither found nor created.
        RunStartError: no run can be started.
        RunVerificationError: the run was started but does not return what was written; it ends as FAILED.
        SettingsError: an argument is invalid.
    """
    request = request_from(
        experiment_name=experiment_name,
        run_name=run_name,
        tracking_uri=tracking_uri,
        tags=tags,
        params=params,
        run_id=run_id,
        check_artifacts=check_artifacts,
    )
    schedule = RetrySchedule(max_retries=max_retries, timeout=timeout, backoff=backoff, deadline=deadline)
    return PreflightRun(request, schedule, status_path).run()
