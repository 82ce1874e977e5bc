"""One preflight: takes the steps, reports progress in the status file, and cleans up if a step fails."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from mlflow_sysmetrics.errors import PreflightError, TrackingURIError
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED, KILLED, RUNNING
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import CLOSING_SENTENCE, failure
from mlflow_sysmetrics.preflight.request import PreflightRequest, PreflightResult
from mlflow_sysmetrics.preflight.retries import Retries, RetrySchedule
from mlflow_sysmetrics.preflight.status_files.documents import JobStatus, RunInfo, Stage
from mlflow_sysmetrics.preflight.status_files.files import StatusFiles
from mlflow_sysmetrics.preflight.steps import Steps
from mlflow_sysmetrics.preflight.uri_check import problem_with

_CLEAN_UP_SECONDS = 5.0  # for ending a run that must not continue, even after the deadline
_log = logging.getLogger("mlflow_sysmetrics")


class PreflightRun:
    """Executes one preflight; `run` is called once.

    Args:
        request: what the caller wants.
        schedule: how often and how long to try.
        status_path: where the status files go; None for nowhere.

    Attributes:
        uri: the tracking URI; empty if none is set.
    """

    def __init__(
        self,
        request: PreflightRequest,
        schedule: RetrySchedule,
        status_path: str | os.PathLike[str] | None,
    ) -> None:
        self._files = StatusFiles(status_path)
        self._info: RunInfo | None = None
        current = fluent_state.tracking_uri()
        self._is_set = request.tracking_uri is not None or current is not None
        self.uri = request.tracking_uri if request.tracking_uri is not None else current or ""
        self._request = replace(request, run_id=request.run_id or fluent_state.run_id_to_resume())
        self._steps = Steps(self._request, self.uri)
        self._retries = Retries(schedule, self._steps.status_code, self._before_pause)

    def run(self, activate: Callable[[str, float], object] | None = None) -> PreflightResult:
        """Takes all steps.

        Args:
            activate: called with the run id and a timeout in seconds; makes the run the active one.

        Raises:
            PreflightError: a step failed.
        """
        self._files.forget_info()
        self._write_status("initializing")
        try:
            self._check_uri()
            self._steps.take(self._retries, lambda: self._write_status("initializing"))
            self._adopt()
            if activate is not None:
                self._activate(activate)
            return self._succeeded()
        except Fault as fault:
            failed_with = fault
        except PreflightError as error:
            self._write_status("failed", error)
            raise
        except BaseException as error:  # Ctrl-C during a pause, or a bug of ours
            self.end_run(KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
            self._write_status("failed", error)
            raise
        # Raised outside the except clause, so it carries no library's exception, whose text may hold secrets.
        failed = failure(failed_with, self._retries, self.uri, self.end_run(FAILED))
        self._write_status("failed", failed)
        raise failed

    def status_of_run(self) -> str | None:
        """Returns the status of the run on the server; None if it cannot be read."""
        store, run_id = self._steps.store, self._steps.run_id
        if store is None or run_id is None:
            return None
        try:
            return store.run(run_id, _CLEAN_UP_SECONDS).status
        except Fault as fault:
            _log.warning(
                "mlflow-sysmetrics: the final status of run %s could not be read: %s", run_id, fault.reason
            )
            return None

    def set_status(self, status: str) -> None:
        """Ends the run on the server, bypassing MLflow, in which it is not active.

        Raises:
            Fault: the server did not accept it.
        """
        store, run_id = self._steps.store, self._steps.run_id
        if store is not None and run_id is not None:
            store.set_status(run_id, status, time.time_ns() // 1_000_000, _CLEAN_UP_SECONDS)

    def write_run_file(self, status: str) -> None:
        """Writes `mlflow_info.json`, which also becomes an artifact of the run."""
        if self._info is not None:
            ended = None if status == RUNNING else datetime.now(timezone.utc)
            self._files.write_info(replace(self._info, status=status, ended_at=ended), run_artifact=True)

    def write_final_files(self, status: str, error: BaseException | None) -> None:
        """Writes both files after the run has ended."""
        self.write_run_file(status)
        self.write_final_status(None if status == FINISHED else error, completed=status == FINISHED)

    def write_final_status(self, error: BaseException | None, *, completed: bool) -> None:
        """Writes the status file after the program has ended, independently of its run's status."""
        self._write_status("completed" if completed else "failed", error)

    def _write_status(self, stage: Stage, error: BaseException | None = None) -> None:
        """Writes the status file."""
        experiment = self._steps.experiment
        self._files.write_status(
            JobStatus(
                stage=stage,
                tracking_uri=self.uri or None,
                experiment_name=experiment.name if experiment else self._request.experiment_name,
                experiment_id=experiment.experiment_id if experiment else None,
                run_id=self._steps.run_id,
                step=self._retries.step,
                error=None if error is None else cleaned(str(error), self.uri) or type(error).__name__,
                error_type=None if error is None else type(error).__name__,
                attempts=tuple(self._retries.made),
                client_version=fluent_state.version(),
                server_version=self._steps.server_version,
                timestamp=datetime.now(timezone.utc),
            )
        )

    def _check_uri(self) -> None:
        if not self._is_set:
            raise TrackingURIError(
                "No tracking URI is set, so MLflow would log to a local store on this machine. "
                f"{fluent_state.HOW_TO_SET} {CLOSING_SENTENCE}",
                step=0,
            )
        problem = problem_with(self.uri)
        if problem is not None:
            raise TrackingURIError(f"{problem} {CLOSING_SENTENCE}", step=0, tracking_uri=redacted(self.uri))

    def _before_pause(self, fault: Fault, pause: float) -> None:
        self._write_status("waiting")
        _log.warning(
            "mlflow-sysmetrics: preflight step %d of 4, %s: attempt %d of %d failed: %s; next one in %g s",
            self._retries.step,
            redacted(self.uri),
            self._retries.count,
            self._retries.schedule.max_retries,
            fault.reason,
            pause,
        )

    def _adopt(self) -> None:
        if self._steps.experiment is not None:
            fluent_state.adopt(self.uri, self._steps.experiment.experiment_id)

    def _activate(self, activate: Callable[[str, float], object]) -> None:
        """Makes the run the active one, for which MLflow updates it once more."""
        store, run = self._steps.store, self._steps.run
        if store is None or run is None:
            raise AssertionError("all steps were taken")
        retries = self._retries
        retries.step = 3
        # MLflow retries a request silently for minutes, so ours goes first.
        retries.call(lambda seconds: store.set_status(run.run_id, RUNNING, run.end_time, seconds))

        def activate_or_fault(seconds: float) -> None:
            began = time.monotonic()
            try:
                activate(run.run_id, seconds)
            except Exception as error:  # stores raise what their database or plugin raises
                fault = fault_of_error(error, self.uri, seconds=time.monotonic() - began)
            else:
                return
            raise fault

        # A timed-out attempt keeps running in its thread beside the next one, so each gets all the time left.
        retries.call(activate_or_fault, at_least=retries.schedule.deadline)
        retries.step = 4

    def _succeeded(self) -> PreflightResult:
        run, experiment = self._steps.run, self._steps.experiment
        if run is None or experiment is None:
            raise AssertionError("all steps were taken")
        self._info = RunInfo(
            run_id=run.run_id,
            experiment_id=experiment.experiment_id,
            experiment_name=experiment.name,
            tracking_uri=self.uri,
            run_name=run.run_name,
            status=RUNNING,
            started_at=datetime.fromtimestamp(run.start_time / 1000, timezone.utc),
        )
        self._write_status("initialized")
        self._files.write_info(self._info)
        return PreflightResult(
            run_id=run.run_id,
            experiment_id=experiment.experiment_id,
            experiment_name=experiment.name,
            tracking_uri=redacted(self.uri),
            client_version=fluent_state.version(),
            server_version=self._steps.server_version,
            attempts=tuple(self._retries.made),
            elapsed_seconds=self._retries.elapsed,
        )

    def end_run(self, status: str) -> str:
        """Ends the run that was created, or restores the status of the one that was resumed.

        Returns:
            A sentence about what is left to do; empty if nothing is.
        """
        steps, resumed = self._steps, self._steps.resumed
        try:
            steps.find_lost_run(_CLEAN_UP_SECONDS)
            if steps.run_id is None or steps.store is None:
                return ""
            if resumed is None:
                now = time.time_ns() // 1_000_000
                steps.store.set_status(steps.run_id, status, now, _CLEAN_UP_SECONDS)
            elif resumed.status != RUNNING:
                steps.store.set_status(steps.run_id, resumed.status, resumed.end_time, _CLEAN_UP_SECONDS)
        except Fault as fault:
            which = f"Run {steps.run_id}" if steps.run_id else "A run whose creation was requested"
            _log.warning("mlflow-sysmetrics: %s could not be ended: %s", which, fault.reason)
            return f"{which} may be left RUNNING: it could not be ended either."
        return ""
