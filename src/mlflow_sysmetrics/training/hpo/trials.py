"""Runs the trials of a study: in this thread, or in several threads that Ctrl-C reaches."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from mlflow_sysmetrics.training.hpo import optuna_study, outcome
from mlflow_sysmetrics.training.hpo.search_space import suggested
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_run import TrialRun

# How long Ctrl-C waits for the trials; one that is inside a C call for longer is left behind.
_GRACE_SECONDS = 10.0
# On Windows an unbounded wait cannot be interrupted.
_POLL_SECONDS = 1.0
_log = logging.getLogger("mlflow_sysmetrics")


def run_trials(
    study: optuna.Study,
    objective: TrackedObjective,
    interruption: Interruption,
    *,
    n_jobs: int,
    **options: Any,
) -> None:
    """Runs the trials of a study.

    Args:
        study: the Optuna study.
        objective: what each trial runs.
        interruption: the one that `objective` uses.
        n_jobs: how many trials run at a time, each in its own thread; 1 uses this thread.
        **options: other arguments of `optuna.Study.optimize`.

    Raises:
        BaseException: what ends the study early.
    """
    if n_jobs == 1:
        study.optimize(objective, **options)
        return
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            study.optimize(objective, n_jobs=n_jobs, **options)
        except BaseException as error:  # noqa: BLE001 - raised below, in the calling thread
            raised.append(error)
        finally:
            done.set()

    # Optuna waits for its threads inside this one, and this one can be left behind. It is not started by
    # `runtime.threads.start_thread`, which blocks signals: processes that an objective function starts would
    # inherit the blocked signals.
    threading.Thread(target=run, name="sysmetrics-study", daemon=True).start()
    try:
        while not done.wait(_POLL_SECONDS):
            pass
    except BaseException:  # Ctrl-C, or what a signal handler of the program raises; it is raised again
        interruption.interrupt()
        _wait_for_grace(done)
        _end_running(study, objective)
        raise
    if raised:
        raise raised[0]


def _wait_for_grace(done: threading.Event) -> None:
    try:
        done.wait(_GRACE_SECONDS)
    except KeyboardInterrupt:
        _log.debug("Ctrl-C was pressed again; not waiting for the trials any longer")


def _end_running(study: optuna.Study, objective: TrackedObjective) -> None:
    for number, run in list(objective.runs.items()):
        if run.outcome is None:
            run.end(outcome.interrupted(run.seconds))
            study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


class TrackedObjective:
    """The objective function that Optuna calls: the user's, inside the run of its trial.

    Args:
        function: the user's objective function.
        distributions: the search space; None if the function suggests parameters itself.
        study_run: the run of the study.
        catch: the exceptions that do not end the study.
        interruption: interrupts trials that run in other threads than the main one.

    Attributes:
        runs: the run of each trial started here, by trial number.
        first_failure: number and exception of the first trial that ends the study; None so far.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        distributions: Mapping[str, BaseDistribution] | None,
        study_run: StudyRun,
        catch: tuple[type[Exception], ...],
        interruption: Interruption,
    ) -> None:
        self._function = function
        self._distributions = distributions
        self._study_run = study_run
        self._catch = catch
        self._interruption = interruption
        self._context = contextvars.copy_context()  # MLflow keeps the workspace in a context variable
        self._lock = threading.Lock()
        self.runs: dict[int, TrialRun] = {}
        self.first_failure: tuple[int, BaseException] | None = None

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Runs one trial and returns its values; an empty tuple makes Optuna mark the trial as failed."""
        run = TrialRun(self._study_run, trial)
        with self._lock:
            self.runs[trial.number] = run
        try:
            with run.active():
                return self._values(trial, run)
        except optuna.TrialPruned:
            raise
        except BaseException as error:  # the objective's; recorded as the end of the run, then raised
            run.end(outcome.raised(error, run.seconds))  # also if the run could not be made active
            if not isinstance(error, self._catch):
                with self._lock:
                    self.first_failure = self.first_failure or (trial.number, error)
                trial.study.stop()
            if not isinstance(
                error, (Exception, KeyboardInterrupt)
            ):  # Optuna leaves the trial of SystemExit RUNNING
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            raise

    def write_missing(self) -> int:
        """Writes the outcomes that the server does not have yet; returns how many are still missing."""
        trials = self._study_run.trials()
        missing = 0
        for number, run in list(self.runs.items()):
            if run.outcome is not None and run.outcome.state is not trials[number].state:
                # Interrupted after its run ended and before Optuna was told.
                run.correct(outcome.interrupted(run.seconds))
            if run.outcome is None or run.recorded:
                continue
            # After a timeout the server is not asked again for each of a hundred trials.
            if not (missing and self._study_run.calls.silent):
                run.record()
            missing += not run.recorded
        return missing

    def _values(self, trial: optuna.Trial, run: TrialRun) -> tuple[float, ...]:
        try:
            with self._interruption.reaches():
                returned = self._call(trial, run)
        except optuna.TrialPruned as pruned:
            run.end(outcome.pruned(str(pruned), run.seconds))
            raise
        except BaseException as error:  # the objective's; recorded as the end of the run, then raised
            if not isinstance(error, KeyboardInterrupt):
                trial.set_user_attr(optuna_study.ERROR, outcome.one_line(error))
            run.end(outcome.raised(error, run.seconds))
            raise
        try:
            values = self._study_run.objectives.values_of(returned)
        except ValueError as error:
            ended = outcome.unusable(str(error), run.seconds)
            trial.set_user_attr(optuna_study.ERROR, ended.reason)
            run.end(ended)
            return ()  # the wrong number of values: Optuna marks the trial as failed and continues
        run.end(outcome.completed(values, run.seconds))
        return values

    def _call(self, trial: optuna.Trial, run: TrialRun) -> object:
        if self._distributions is None:
            run.log_params({})
            return self._call_in_context(trial)
        params = suggested(trial, self._distributions)
        run.log_params(params)
        return self._call_in_context(trial, params)

    def _call_in_context(self, *arguments: object) -> object:
        if threading.current_thread() is threading.main_thread():
            return self._function(*arguments)
        return self._context.copy().run(self._function, *arguments)


class Interruption:
    """Raises KeyboardInterrupt in all threads that run objective functions.

    Python raises it in the main thread only, so Ctrl-C would wait for the objective functions in other
    threads to return, which may take hours. There it is raised between two bytecode instructions, as in the
    main thread: a C call (a kernel, `time.sleep`) returns first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._interrupted = False

    @contextlib.contextmanager
    def reaches(self) -> Iterator[None]:
        """Allows this thread to be interrupted inside the ``with`` block, and not after it.

        Raises:
            KeyboardInterrupt: at any point of the block, or on entry after `interrupt`.
        """
        own = threading.get_ident()
        with self._lock:
            if self._interrupted:
                raise KeyboardInterrupt
            self._inside.add(own)
        try:
            yield
        finally:
            with self._lock:
                self._inside.discard(own)
                _raise_in(own, None)  # a pending one would be raised while the run is being ended

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt in every thread that is inside `reaches` or enters it later."""
        with self._lock:
            self._interrupted = True
            for thread in self._inside:
                _raise_in(thread, KeyboardInterrupt)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raise_in = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)
    if raise_in is not None:  # PyPy lacks it: there Ctrl-C waits for the trials
        raise_in(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))
