"""How a trial ended, as a state of Optuna and as a status of MLflow."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

import mlflow
from optuna.trial import FrozenTrial, TrialState

from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.stores import FAILED, FINISHED, KILLED
from mlflow_sysmetrics.training.hpo.optuna_study import ERROR

_INTERRUPTED = "interrupted"
_DIED = "its process ended before the trial did"


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. Its texts contain no credentials.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        status: status of its run: FINISHED, FAILED or KILLED.
        values: one per objective; of a pruned trial the last reported value; None if there is none.
        reason: why it did not complete, in one line; None if it completed.
        error: the content of the artifact error.txt; None if nothing was raised.
        duration_seconds: how long the objective function ran; None if not measured.
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
    """Returns the outcome of a trial that returned its values."""
    return Outcome(TrialState.COMPLETE, FINISHED, values, duration_seconds=seconds)


def pruned(message: str, seconds: float) -> Outcome:
    """Returns the outcome of a pruned trial, with the message of `optuna.TrialPruned`."""
    reason = f"pruned: {_without_credentials(message)}" if message else "pruned"
    return Outcome(TrialState.PRUNED, KILLED, reason=reason, duration_seconds=seconds)


def unusable(message: str, seconds: float) -> Outcome:
    """Returns the outcome of a trial that returned something other than its values."""
    reason = _without_credentials(message)
    return Outcome(TrialState.FAIL, FAILED, reason=reason, error=f"{reason}\n", duration_seconds=seconds)


def raised(error: BaseException, seconds: float) -> Outcome:
    """Returns the outcome of a trial that raised; a KeyboardInterrupt is an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted(seconds)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Outcome(
        TrialState.FAIL,
        FAILED,
        reason=one_line(error),
        error=_without_credentials(text),
        duration_seconds=seconds,
    )


def interrupted(seconds: float) -> Outcome:
    """Returns the outcome of a trial that Ctrl-C interrupted."""
    return Outcome(TrialState.FAIL, KILLED, reason=_INTERRUPTED, duration_seconds=seconds)


def from_optuna(trial: FrozenTrial, last_seen: int | None) -> Outcome:
    """Returns the outcome of a finished trial that only Optuna knows about.

    Args:
        trial: in the state COMPLETE, PRUNED or FAIL.
        last_seen: when its run last received data, in milliseconds since 1970; None if it has no run.
    """
    ended_at = _now() if trial.datetime_complete is None else int(trial.datetime_complete.timestamp() * 1000)
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    if trial.state is not TrialState.FAIL:
        was_pruned = trial.state is TrialState.PRUNED
        return Outcome(
            trial.state,
            KILLED if was_pruned else FINISHED,
            None if trial.values is None else tuple(trial.values),
            reason="pruned" if was_pruned else None,
            duration_seconds=seconds,
            ended_at=ended_at,
        )
    if (error := trial.user_attrs.get(ERROR)) is not None:
        reason = _without_credentials(str(error))
        return Outcome(
            trial.state,
            FAILED,
            reason=reason,
            error=f"{reason}\n",
            duration_seconds=seconds,
            ended_at=ended_at,
        )
    # Optuna's end time is when the death was noticed; the machine may have gone down days before.
    died_at = min(last_seen, ended_at) if last_seen else ended_at
    return Outcome(trial.state, KILLED, reason=_DIED, ended_at=died_at)


def one_line(error: BaseException) -> str:
    """Returns the type and the first line of an exception, without credentials.

    An objective function may raise what MLflow raised in it, and a server may quote the request's token.
    """
    first = (_without_credentials(str(error)).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _without_credentials(text: str) -> str:
    return cleaned(text, mlflow.get_tracking_uri())
