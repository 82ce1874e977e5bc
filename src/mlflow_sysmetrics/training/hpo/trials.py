"""Has Optuna carry out the trials of a study: here, or in threads that Ctrl-C reaches."""

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

from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.search_space import suggested
from mlflow_sysmetrics.training.hpo.study_run import StudyRun
from mlflow_sysmetrics.training.hpo.trial_run import TrialRun

# FOLDED interruption: Ctrl-C for objective functions that run in threads.
# FOLDED
# FOLDED  Python raises KeyboardInterrupt in the main thread only. An objective function that runs in another would be
# FOLDED  waited for until it is done, which may be hours. So it is raised there too, between two steps of Python as
# FOLDED  in the main thread; what is in a call of C (a kernel, `time.sleep`) first comes to its end.


class Interruption:
    """Knows the threads in which objective functions are running, and interrupts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._called = False

    @property
    def called(self) -> bool:
        """Whether the objective functions were interrupted."""
        return self._called

    @contextlib.contextmanager
    def reaches(self) -> Iterator[None]:
        """Lets this thread be interrupted within a ``with`` block, and not behind it.

        Raises:
            KeyboardInterrupt: at any point of the block.
        """
        own = threading.get_ident()
        with self._lock:
            if self._called:
                raise KeyboardInterrupt
            self._inside.add(own)
        try:
            yield
        finally:
            with self._lock:
                self._inside.discard(own)
                _raise_in(own, None)  # one that was on its way would come in the middle of ending the run

    def call(self) -> None:
        """Raises KeyboardInterrupt in every thread that is inside, and in those that come."""
        with self._lock:
            self._called = True
            for thread in self._inside:
                _raise_in(thread, KeyboardInterrupt)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raise_in = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)
    if raise_in is not None:  # not PyPy: there Ctrl-C waits until the trials are done
        raise_in(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))


# FOLDED objective: The objective function as Optuna calls it: the user's, within its trial's run.


class TrackedObjective:
    """Carries out trials, each in its own run, and remembers how they ended.

    Args:
        function: of the user.
        distributions: what to search; None where the function suggests by itself.
        study_run: of the study.
        catch: what a trial may raise without ending the study.
        interruption: interrupts the trials that are under way in other threads than the main one.
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
        self._context = contextvars.copy_context()  # MLflow keeps its workspace there
        self._lock = threading.Lock()
        self.runs: dict[int, TrialRun] = {}
        self.first_failure: tuple[int, BaseException] | None = None

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Returns what the function has returned, as Optuna wants it."""
        run = TrialRun(self._study_run, trial)
        with self._lock:
            self.runs[trial.number] = run
        try:
            with run.active():
                return self._carried_out(trial, run)
        except optuna.TrialPruned:
            raise
        except BaseException as error:  # the objective's: its run is to end as it did, and it is raised on
            run.end(outcome.raised(error, run.seconds))  # where even its run could not be made active
            if not isinstance(error, self._catch):
                with self._lock:
                    self.first_failure = self.first_failure or (trial.number, error)
                trial.study.stop()
            if not isinstance(error, (Exception, KeyboardInterrupt)):  # SystemExit: Optuna lets it through
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            raise

    def settled(self) -> int:
        """Writes what is missing of the trials that were carried out here; returns how many still are."""
        trials = self._study_run.trials()
        missing = 0
        for number, run in list(self.runs.items()):
            if run.outcome is not None and run.outcome.state is not trials[number].state:
                run.correct(outcome.interrupted(run.seconds))  # between the end of its run and its own
            if run.outcome is None or run.recorded:
                continue
            # A server that has just been silent is not asked for each of a hundred trials.
            if not (missing and self._study_run.calls.silent):
                run.record()
            missing += not run.recorded
        return missing

    def _carried_out(self, trial: optuna.Trial, run: TrialRun) -> tuple[float, ...]:
        try:
            with self._interruption.reaches():
                returned = self._called(trial, run)
        except optuna.TrialPruned as pruned:
            run.end(outcome.pruned(str(pruned), run.seconds))
            raise
        except BaseException as error:  # whatever it is, it is how its run ends
            if not isinstance(error, KeyboardInterrupt):
                trial.set_user_attr(outcome.ERROR, outcome.told(error))
            run.end(outcome.raised(error, run.seconds))
            raise
        try:
            values = self._study_run.objectives.values_of(returned)
        except ValueError as error:
            trial.set_user_attr(outcome.ERROR, str(error))
            run.end(outcome.unusable(str(error), run.seconds))
            return ()  # not as many as there are objectives: Optuna calls that failed, and goes on
        run.end(outcome.completed(values, run.seconds))
        return values

    def _called(self, trial: optuna.Trial, run: TrialRun) -> object:
        if self._distributions is None:
            run.tell_params({})
            return self._within_context(trial)
        params = suggested(trial, self._distributions)
        run.tell_params(params)
        return self._within_context(trial, params)

    def _within_context(self, *arguments: object) -> object:
        if threading.current_thread() is threading.main_thread():
            return self._function(*arguments)
        return self._context.copy().run(self._function, *arguments)


# One that sits in a call of C is not waited for longer: whoever has pressed Ctrl-C is waiting, too.
_GRACE_SECONDS = 10.0
# On Windows a wait without an end cannot be interrupted.
_LOOK_SECONDS = 1.0
_log = logging.getLogger("mlflow_sysmetrics")


def carry_out(
    study: optuna.Study,
    objective: TrackedObjective,
    interruption: Interruption,
    *,
    n_jobs: int,
    **named: Any,
) -> None:
    """Carries out trials.

    Args:
        study: of Optuna.
        objective: what its trials do.
        interruption: of the same trials.
        n_jobs: how many at a time, each in a thread of its own; 1 uses this thread.
        **named: as of `optuna.Study.optimize`.

    Raises:
        BaseException: what ends the study before its time.
    """
    if n_jobs == 1:
        study.optimize(objective, **named)
        return
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            study.optimize(objective, n_jobs=n_jobs, **named)
        except BaseException as error:  # noqa: BLE001 - raised below, by whom it was asked for
            raised.append(error)
        finally:
            done.set()

    # Optuna waits in it for its threads, which this one does only as long as it wants. No thread of
    # `start_thread`, which blocks signals: what an objective function starts would inherit that.
    threading.Thread(target=run, name="sysmetrics-study", daemon=True).start()
    try:
        _wait(done.wait)
    except BaseException:  # Ctrl-C, or what a signal handler of the user's raises; it is raised on
        interruption.call()
        _wait_a_little(done)
        _end_what_goes_on(study, objective)
        raise
    if raised:
        raise raised[0]


def _wait(wait: Callable[[float], bool]) -> None:
    while not wait(_LOOK_SECONDS):
        pass


def _wait_a_little(done: threading.Event) -> None:
    try:
        done.wait(_GRACE_SECONDS)
    except KeyboardInterrupt:
        _log.debug("pressed once more")


def _end_what_goes_on(study: optuna.Study, objective: TrackedObjective) -> None:
    for number, run in list(objective.runs.items()):
        if run.outcome is None:
            run.end(outcome.interrupted(run.seconds))
            study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
