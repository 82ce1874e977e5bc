"""Has Optuna carry out the trials of a study: here, or in threads that Ctrl-C reaches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import optuna

from mlflow_sysmetrics.training.hpo import outcome
from mlflow_sysmetrics.training.hpo.interruption import Interruption
from mlflow_sysmetrics.training.hpo.objective import TrackedObjective

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
    **named: Any,  # noqa: ANN401 - those of Optuna
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
