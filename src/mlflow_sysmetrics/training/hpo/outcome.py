"""How a trial has ended, in Optuna's words and in MLflow's."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED, KILLED

# FOLDED marks: What is written into Optuna's storage beside a study and its trials, so that their runs are found again.

#: On a study: its run. On a trial: the run of the study that it was begun for.
PARENT = "mlflow_parent_run_id"
#: On a trial: its run.
RUN = "mlflow_run_id"
#: On a trial: the process that carries it out, see `processes`.
PROCESS = "mlflow_sysmetrics_process"
#: On a trial: what it has raised, or what was wrong with what it returned.
ERROR = "error"
#: On a study: the names of its objectives.
METRICS = "metrics"


_STATUS = {TrialState.COMPLETE: FINISHED, TrialState.PRUNED: KILLED, TrialState.FAIL: FAILED}


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Outcome:
    """How a trial has ended.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        status: of its run: FINISHED, FAILED or KILLED.
        values: one per objective; of a pruned trial what it reported last; None without.
        reason: why, in a line; None where it completed.
        error: the text of the artifact error.txt; None where nothing was raised.
        duration_seconds: of the objective function; None where nobody has measured it.
        ended_at: milliseconds since 1970.
    """

    state: TrialState
    status: str
    values: tuple[float, ...] | None = None
    reason: str | None = None
    error: str | None = None
    duration_seconds: float | None = None
    ended_at: int = field(default_factory=_now)


def completed(values: tuple[float, ...], seconds: float) -> Outcome:
    """Returns the outcome of a trial that has returned its values."""
    return Outcome(TrialState.COMPLETE, FINISHED, values, duration_seconds=seconds)


def pruned(said: str, seconds: float) -> Outcome:
    """Returns the outcome of a trial that was given up, and says so."""
    return Outcome(TrialState.PRUNED, KILLED, None, f"pruned: {said}" if said else "pruned", None, seconds)


def unusable(reason: str, seconds: float) -> Outcome:
    """Returns the outcome of a trial that has returned what is no value."""
    return Outcome(TrialState.FAIL, FAILED, None, reason, reason + "\n", seconds)


def raised(error: BaseException, seconds: float) -> Outcome:
    """Returns the outcome of a trial that has raised something; KeyboardInterrupt is an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted(seconds)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Outcome(TrialState.FAIL, FAILED, None, told(error), cleaned(text), seconds)


def interrupted(seconds: float) -> Outcome:
    """Returns the outcome of a trial that Ctrl-C has ended."""
    return Outcome(TrialState.FAIL, KILLED, None, "interrupted", None, seconds)


def found(trial: FrozenTrial, last_sign: int | None) -> Outcome:
    """Returns the outcome of a trial that has ended, of which only Optuna knows.

    Args:
        trial: COMPLETE, PRUNED or FAIL.
        last_sign: milliseconds since 1970 when its run was last heard of, where it has one.
    """
    values = None if trial.values is None else tuple(trial.values)
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    ended_at = _now() if trial.datetime_complete is None else int(trial.datetime_complete.timestamp() * 1000)
    reason = trial.user_attrs.get(ERROR)
    if trial.state is not TrialState.FAIL:
        reason = "pruned" if trial.state is TrialState.PRUNED else None
        return Outcome(trial.state, _STATUS[trial.state], values, reason, None, seconds, ended_at)
    if reason is not None:
        return Outcome(trial.state, FAILED, None, str(reason), f"{reason}\n", seconds, ended_at)
    # Optuna says that it has ended when somebody noticed; the machine may have gone down days before.
    return Outcome(
        trial.state,
        KILLED,
        None,
        "its process ended before the trial did",
        None,
        None,
        min(last_sign, ended_at) if last_sign else ended_at,
    )


def told(error: BaseException) -> str:
    """Returns an exception in a line."""
    first = (cleaned(str(error)).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
