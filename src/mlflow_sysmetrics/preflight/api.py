"""The functions `preflight` and `tracked_run`: a run is checked before its training starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow_sysmetrics.errors import RunStartError
from mlflow_sysmetrics.interruptions import reraise_interruption
from mlflow_sysmetrics.mlflow_api import active_runs, fluent_state
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED, KILLED, RUNNING
from mlflow_sysmetrics.preflight.preflight_run import PreflightRun
from mlflow_sysmetrics.preflight.remedies import CLOSING_SENTENCE
from mlflow_sysmetrics.preflight.request import PreflightResult, request_from
from mlflow_sysmetrics.preflight.retries import RetrySchedule

_log = logging.getLogger("mlflow_sysmetrics")


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
        deadline: longest time for everything, in seconds, from the first request; importing MLflow and
            obtaining credentials from a plugin do not count.
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


@contextmanager
def tracked_run(
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
    log_system_metrics: bool | None = None,
) -> Iterator[Any]:
    """Executes the body of a ``with`` block inside a run that is verified to be tracked.

    The run ends as FINISHED, FAILED if the body raises, or KILLED on Ctrl-C; `sys.exit` counts by its code.
    `mlflow_info.json` becomes an artifact of the run. All arguments but the last are those of `preflight`.

    Args:
        experiment_name: found or created; by default the one that `mlflow.start_run` would use.
        run_name: name of the run; by default MLflow generates one.
        tracking_uri: the server; by default the URI that is set.
        tags: tags of the run.
        params: logged to the run.
        run_id: resumes this run instead of creating one.
        max_retries: attempts of each request, including the first.
        timeout: timeout of each attempt, in seconds.
        backoff: seconds to wait after each attempt; the last one repeats.
        deadline: longest time for the whole preflight, in seconds.
        check_artifacts: also writes a small artifact and reads it back.
        status_path: a directory or URI for the status files.
        log_system_metrics: as in `mlflow.start_run`.

    Yields:
        MLflow's active run.

    Raises:
        PreflightError: the run cannot be tracked; the body is not entered.
        SettingsError: an argument is invalid.
    """
    if active := fluent_state.active_run_ids():
        raise RunStartError(
            f"Run {active[-1]} is already active in this thread, which can have only one. End it with "
            f"mlflow.end_run() first, or call tracked_run in another thread. {CLOSING_SENTENCE}",
            step=3,
        )
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
    preflight_run = PreflightRun(request, schedule, status_path)
    started: list[Any] = []
    try:
        preflight_run.run(lambda run_id, seconds: started.append(active_runs.start_run(run_id, seconds)))
    except BaseException as error:
        if started:  # Ctrl-C at the last moment: at exit MLflow would end the run as FINISHED
            _end(preflight_run, started[0].info.run_id, status_of(error), error)
        raise
    run_id = started[0].info.run_id
    try:
        active_runs.start_system_metrics(run_id, log_system_metrics)
        preflight_run.write_run_file(RUNNING)
        yield started[0]
    except BaseException as error:  # whatever the body raises decides how its run ends
        _end(preflight_run, run_id, status_of(error), error)
        raise
    _end(preflight_run, run_id, FINISHED, None)


def status_of(error: BaseException) -> str:
    """Returns the final status of a run whose body raised this error."""
    if isinstance(error, KeyboardInterrupt):
        return KILLED
    if isinstance(error, SystemExit) and error.code in {None, 0}:
        return FINISHED
    return FAILED


def _end(preflight_run: PreflightRun, run_id: str, status: str, error: BaseException | None) -> None:
    """Ends the run and writes both files; an error of the body takes precedence over one in here."""
    ended: str | None = status
    try:
        if run_id in fluent_state.active_run_ids():
            active_runs.end_run(run_id, status)
        else:
            ended = _ended_by_the_body(preflight_run, status)
    except Exception as failed:  # MLflow's, its store's or a plugin's
        # The run's file keeps saying RUNNING, like the run.
        preflight_run.write_final_status(error or failed, completed=False)
        if error is None:
            raise
        _log.warning(
            "mlflow-sysmetrics: run %s may be left RUNNING, because ending it failed: %s",
            run_id,
            cleaned(str(failed), preflight_run.uri),
        )
        reraise_interruption(failed)
        return
    if ended is None:
        preflight_run.write_final_status(None if status == FINISHED else error, completed=status == FINISHED)
    else:
        by_body = None if ended == status else RuntimeError(f"The program ended its run as {ended}.")
        preflight_run.write_final_files(ended, error if status != FINISHED else by_body)


def _ended_by_the_body(preflight_run: PreflightRun, status: str) -> str | None:
    """Returns the final status of a run that is no longer active; None if the server cannot tell."""
    status_on_server = preflight_run.status_of_run()
    # A body that ends its run as FINISHED and then raises has failed all the same.
    if status_on_server == RUNNING or (status_on_server == FINISHED and status != FINISHED):
        preflight_run.set_status(status)
        return status
    return status_on_server
