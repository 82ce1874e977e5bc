"""How far a study has come: counts, and the best value as a curve over its trials. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class Counts:
    """How many trials of a study have come how far; one that is only queued has not begun."""

    completed: int
    pruned: int
    failed: int
    running: int

    @property
    def total(self) -> int:
        """Trials that were begun."""
        return self.completed + self.pruned + self.failed + self.running


class BestSoFar(NamedTuple):
    """The best value among the trials up to a number.

    Attributes:
        number: of the trial that completed.
        value: the best one among it and those with lower numbers.
        at: milliseconds since 1970 when it completed; the same each time this is asked, so that a point that
            is written twice is one point.
    """

    number: int
    value: float
    at: int


def counts_of(trials: Sequence[FrozenTrial]) -> Counts:
    """Returns how many trials have come how far."""

    def count(state: TrialState) -> int:
        return sum(trial.state is state for trial in trials)

    return Counts(
        completed=count(TrialState.COMPLETE),
        pruned=count(TrialState.PRUNED),
        failed=count(TrialState.FAIL),
        running=count(TrialState.RUNNING),
    )


def best_curve(
    trials: Sequence[FrozenTrial], direction: StudyDirection, *, settled_only: bool
) -> Iterator[BestSoFar]:
    """Yields a point per completed trial, in the order of their numbers.

    Args:
        trials: in the order of their numbers.
        direction: which value is better.
        settled_only: ends before the first trial that is under way. Of parallel trials a later one may end
            first; a point that was written then could be wrong, and MLflow takes nothing back.
    """
    best: float | None = None
    for trial in trials:
        if settled_only and not trial.state.is_finished():
            return
        if trial.state is not TrialState.COMPLETE or trial.datetime_complete is None or not _feasible(trial):
            continue
        value = float(trial.values[0])
        better = min if direction is StudyDirection.MINIMIZE else max
        best = value if best is None else better(best, value)
        yield BestSoFar(trial.number, best, int(trial.datetime_complete.timestamp() * 1000))


def _feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial keeps to the constraints of its study, as Optuna's own best trial has to."""
    return all(value <= 0 for value in trial.system_attrs.get("constraints") or ())
