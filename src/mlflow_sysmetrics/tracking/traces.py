"""What a check has made on a tracking store so far, and how that is removed again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow_sysmetrics.tracking.faults import Fault
from mlflow_sysmetrics.tracking.removal import Removal
from mlflow_sysmetrics.tracking.stores import Store

CHECK_TAG = "sysmetrics.check"  #: on the run that a check makes, with a value of its own
OWN_NAME = "mlflow-sysmetrics-check"  #: how the experiments begin that a check names itself
_LATE_SECONDS = 1.0  # how much later a request may take effect that was given up


@dataclass
class Traces:
    """What may be on the store, also where the answer that would tell so never came.

    Attributes:
        wanted: name of the experiment that the user asked for; None for one of the check's own, which no
            other check has: what two at a time make and remove would be in each other's way.
        token: value of the run's tag.
        experiment_id: once it is known.
        run_id: once it is known.
        experiment_begun: whether its making was asked for.
        experiment_made: whether it was answered that it was made.
        run_begun: whether the making of the run was asked for.
    """

    wanted: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    experiment_id: str | None = None
    run_id: str | None = None
    experiment_begun: bool = False
    experiment_made: bool = False
    run_begun: bool = False

    @property
    def own_name(self) -> str:
        """A name that no experiment of the user's has."""
        return f"{OWN_NAME}-{self.token[:8]}"

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.wanted or self.own_name

    def remove(
        self, store: Store, removal: Removal, seconds: float, sleep: Callable[[float], None]
    ) -> list[str]:
        """Removes the run, and the experiment if it was made and nobody else has begun to use it.

        Args:
            store: where they are.
            removal: removes from it.
            seconds: longest wait for each answer.
            sleep: waits before a run whose making was not answered is looked for once more.

        Returns:
            What could not be removed and why, one clause each.
        """
        try:
            if self.run_begun:
                self._remove_run(store, removal, seconds, sleep)
        except Fault as fault:
            return [f"run {self.run_id or 'whose making was not answered'}: {fault.reason}"]
        try:
            if self.experiment_begun:
                self._remove_experiment(store, removal, seconds)
        except Fault as fault:
            return [f"experiment {self.experiment}: {fault.reason}"]
        return []

    def _remove_run(
        self, store: Store, removal: Removal, seconds: float, sleep: Callable[[float], None]
    ) -> None:
        if self.run_id is None:
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is None:
            sleep(_LATE_SECONDS)
            self.run_id = self._lost_run(store, seconds)
        if self.run_id is not None:
            removal.delete_run(self.run_id, seconds)

    def _lost_run(self, store: Store, seconds: float) -> str | None:
        return store.run_tagged(self.experiment_id or "", CHECK_TAG, self.token, seconds)

    def _remove_experiment(self, store: Store, removal: Removal, seconds: float) -> None:
        found = store.experiment_named(self.experiment, seconds)
        # One of the user's name whose making was not answered may be somebody else's.
        if found is None or not (self.experiment_made or self.wanted is None):
            return
        if removal.has_runs(found.experiment_id, seconds):
            return
        if self.wanted is not None:
            # A deleted experiment holds its name, and the job would fail for that.
            removal.rename_experiment(found.experiment_id, f"{self.own_name} ({self.wanted})", seconds)
        removal.delete_experiment(found.experiment_id, seconds)
