"""What an Optuna study makes of the epochs of a trial."""

from __future__ import annotations

from typing import Any

from mlflow_sysmetrics.training.extras import needed


class Pruning:
    """Reports epochs to a trial.

    Args:
        trial: of Optuna; None has nothing to say.

    Attributes:
        pruned: whether the study wants no more of this trial.
    """

    def __init__(self, trial: Any | None) -> None:  # noqa: ANN401 - Optuna may be absent
        self.pruned = False
        self._trial = trial

    def look(self, epoch: int, value: float | None) -> None:
        """Reports the monitored metric of an epoch, if it has one, and asks whether to go on."""
        if self._trial is not None and value is not None:
            self._trial.report(value, step=epoch)
            self.pruned = bool(self._trial.should_prune())
            self._epoch = epoch

    def raise_if_pruned(self) -> None:
        """Ends the trial as the study wants it.

        Raises:
            optuna.TrialPruned: it does.
        """
        if self.pruned:
            optuna = needed("optuna", extra="hpo", by="Trainer.train(trial=...)")
            raise optuna.TrialPruned(f"pruned after epoch {self._epoch}")
