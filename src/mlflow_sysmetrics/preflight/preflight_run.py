"""One preflight: takes the steps, says in the status file how far it is, and cleans up where it fails."""

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
from mlflow_sysmetrics.preflight.attempts import Asked, PreflightResult
from mlflow_sysmetrics.preflight.failures import LAST_WORDS, failure
from mlflow_sysmetrics.preflight.status_files.files import StatusFiles
from mlflow_sysmetrics.preflight.status_files.status import RunInfo, Stage, Status
from mlflow_sysmetrics.preflight.steps import Steps
from mlflow_sysmetrics.preflight.tries import Pace, Tries
from mlflow_sysmetrics.preflight.uri_check import problem_with

_CLEAN_UP_SECONDS = 5.0  # for ending a run that must not go on, also where the deadline has passed
_log = logging.getLogger("mlflow_sysmetrics")


class PreflightRun:
    """Takes one preflight; `fly` is called once.

    Args:
        asked: what the caller wants.
        pace: how long to try.
        status_path: where the files go; None for nowhere.

    Attributes:
        uri: the tracking URI; empty where there is none.
    """

    def __init__(self, asked: Asked, pace: Pace, status_path: str | os.PathLike[str] | None) -> None:
        self._files = StatusFiles(status_path)
        self._info: RunInfo | None = None
        self._is_set = asked.tracking_uri is not None or fluent_state.tracking_uri() is not None
        self.uri = asked.tracking_uri if asked.tracking_uri is not None else fluent_state.tracking_uri() or ""
        self._asked = replace(asked, run_id=asked.run_id or fluent_state.run_id_to_resume())
        self._steps = Steps(self._asked, self.uri)
        self._tries = Tries(pace, self._steps.status_code, self._before_wait)

    def fly(self, begin: Callable[[str, float], object] | None = None) -> PreflightResult:
        """Takes all steps.

        Args:
            begin: makes the run that it is given the active one, within the seconds that it is given.

        Raises:
            PreflightError: one could not be taken.
        """
        self._files.forget_info()
        self._report("initializing")
        try:
            self._check_uri()
            self._steps.take(self._tries, lambda: self._report("initializing"))
            self._adopt()
            if begin is not None:
                self._begin(begin)
            return self._landed()
        except Fault as fault:
            found = fault
        except PreflightError as error:
            self._report("failed", error)
            raise
        except BaseException as error:  # Ctrl-C while waiting, or a fault of ours
            self.end_run(KILLED if isinstance(error, KeyboardInterrupt) else FAILED)
            self._report("failed", error)
            raise
        # Raised out here it carries no exception of a library, whose text may hold what must not be shown.
        failed = failure(found, self._tries, self.uri, self.end_run(FAILED))
        self._report("failed", failed)
        raise failed

    def status_of_run(self) -> str | None:
        """Returns the status that the server has of the run; None where it cannot be told."""
        store, run_id = self._steps.store, self._steps.run_id
        if store is None or run_id is None:
            return None
        try:
            return store.run(run_id, _CLEAN_UP_SECONDS).status
        except Fault as fault:
            _log.warning("how run %s has ended is not known: %s", run_id, fault.reason)
            return None

    def set_status(self, status: str) -> None:
        """Ends the run over the head of MLflow, in which it is not active.

        Raises:
            Fault: it could not be ended.
        """
        store, run_id = self._steps.store, self._steps.run_id
        if store is not None and run_id is not None:
            store.set_status(run_id, status, time.time_ns() // 1_000_000, _CLEAN_UP_SECONDS)

    def say_run(self, status: str) -> None:
        """Writes the run's file and has it among the run's artifacts."""
        if self._info is not None:
            ended = None if status == RUNNING else datetime.now(timezone.utc)
            self._files.write_info(replace(self._info, status=status, ended_at=ended), run_artifact=True)

    def say_end(self, status: str, error: BaseException | None) -> None:
        """Writes both files of a run that is over."""
        self.say_run(status)
        self.say_over(None if status == FINISHED else error, completed=status == FINISHED)

    def say_over(self, error: BaseException | None, *, completed: bool) -> None:
        """Writes the status file of a program that is over, whatever has become of its run."""
        self._report("completed" if completed else "failed", error)

    def _report(self, stage: Stage, error: BaseException | None = None) -> None:
        """Writes the status file."""
        experiment = self._steps.experiment
        self._files.write_status(
            Status(
                stage=stage,
                tracking_uri=self.uri or None,
                experiment_name=experiment.name if experiment else self._asked.experiment_name,
                experiment_id=experiment.experiment_id if experiment else None,
                run_id=self._steps.run_id,
                step=self._tries.step,
                error=None if error is None else cleaned(str(error), self.uri) or type(error).__name__,
                error_type=None if error is None else type(error).__name__,
                attempts=tuple(self._tries.made),
                client_version=fluent_state.version(),
                server_version=self._steps.server_version,
                timestamp=datetime.now(timezone.utc),
            )
        )

    def _check_uri(self) -> None:
        if not self._is_set:
            raise TrackingURIError(
                "No tracking URI is set, so MLflow would log to a local store of this machine. "
                f"{fluent_state.HOW_TO_SET} {LAST_WORDS}",
                step=0,
            )
        problem = problem_with(self.uri)
        if problem is not None:
            raise TrackingURIError(f"{problem} {LAST_WORDS}", step=0, tracking_uri=redacted(self.uri))

    def _before_wait(self, fault: Fault, wait: float) -> None:
        self._report("waiting")
        _log.warning(
            "preflight, step %d of 4, %s: try %d of %d: %s; the next one in %g s",
            self._tries.step,
            redacted(self.uri),
            self._tries.asked,
            self._tries.pace.max_retries,
            fault.reason,
            wait,
        )

    def _adopt(self) -> None:
        if self._steps.experiment is not None:
            fluent_state.adopt(self.uri, self._steps.experiment.experiment_id)

    def _begin(self, begin: Callable[[str, float], object]) -> None:
        """Has the run made the active one, which MLflow does by updating it once more."""
        store, run = self._steps.store, self._steps.run
        if store is None or run is None:
            raise AssertionError("all steps were taken")
        tries = self._tries
        tries.step = 3
        # MLflow repeats a request in silence for minutes, so ours goes first.
        tries.ask(lambda seconds: store.set_status(run.run_id, RUNNING, run.end_time, seconds))

        def begin_or_fault(seconds: float) -> None:
            began = time.monotonic()
            try:
                begin(run.run_id, seconds)
            except Exception as error:  # noqa: BLE001 - stores raise what their database or plugin raises
                fault = fault_of_error(error, self.uri, seconds=time.monotonic() - began)
            else:
                return
            raise fault

        # One that was given up may still be at it, so none begins beside it: each has all the time there is.
        tries.ask(begin_or_fault, at_least=tries.pace.deadline)
        tries.step = 4

    def _landed(self) -> PreflightResult:
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
        self._report("initialized")
        self._files.write_info(self._info)
        return PreflightResult(
            run_id=run.run_id,
            experiment_id=experiment.experiment_id,
            experiment_name=experiment.name,
            tracking_uri=redacted(self.uri),
            client_version=fluent_state.version(),
            server_version=self._steps.server_version,
            attempts=tuple(self._tries.made),
            elapsed_seconds=self._tries.elapsed,
        )

    def end_run(self, status: str) -> str:
        """Ends the run that was made, or leaves the one that was resumed as it was found.

        Returns:
            What is left to do, as a sentence; empty where nothing is.
        """
        steps, found = self._steps, self._steps.resumed
        try:
            steps.find_lost_run(_CLEAN_UP_SECONDS)
            if steps.run_id is None or steps.store is None:
                return ""
            if found is None:
                now = time.time_ns() // 1_000_000
                steps.store.set_status(steps.run_id, status, now, _CLEAN_UP_SECONDS)
            elif found.status != RUNNING:
                steps.store.set_status(steps.run_id, found.status, found.end_time, _CLEAN_UP_SECONDS)
        except Fault as fault:
            which = f"Run {steps.run_id}" if steps.run_id else "A run that was asked for"
            _log.warning("%s could not be ended: %s", which, fault.reason)
            return f"{which} may be left RUNNING: it could not be ended either."
        return ""
