"""What `reap --apply` does: delivers what the dead left, ends their runs, clears away their journals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlflow_sysmetrics.cli.deaths import Death, Search
from mlflow_sysmetrics.cli.delivery import Delivery, told
from mlflow_sysmetrics.cli.spooled import SpooledJournal
from mlflow_sysmetrics.errors import DeliveryError


class Reaper:
    """Ends dead runs.

    Args:
        search: how they were found; it takes what goes wrong.
        journals: those of this machine.
    """

    def __init__(self, search: Search, journals: Iterable[SpooledJournal]) -> None:
        self._search = search
        self._delivery = Delivery(search.tracking_uri)
        self._orphans = [journal for journal in journals if journal.orphaned]

    def reap(self, deaths: Sequence[Death]) -> list[str]:
        """Returns the ids of the runs that were set to KILLED."""
        owing = {path for death in deaths for path in death.journals}
        delivered = {path for path in sorted(owing) if self._deliver(path)}
        killed = [
            death.run.run_id for death in deaths if delivered.issuperset(death.journals) and self._kill(death)
        ]
        for journal in self._orphans:
            # Once more, now that its runs have ended: it is deleted then. What waits in others is for `sync`.
            if journal.path in delivered or not journal.waiting:
                self._delivery.deliver(journal.path)
        return killed

    def _deliver(self, path: Path) -> bool:
        """Delivers an orphaned journal; returns whether nothing of it waits any more."""
        outcome = self._delivery.deliver(path)
        if outcome is None:
            self._search.faults.append(f"{path}: another process delivers it now; run reap again")
            return False
        self._search.faults += told([outcome])
        return not outcome.waiting

    def _kill(self, death: Death) -> bool:
        try:
            # Asked again: delivering may have taken minutes, in which somebody else may have ended it.
            run = death.server.run(death.run.run_id)
            if run is None or not run.running:
                return False
            # All that we have delivered is older than what was known at its death.
            if (sign := run.last_sign or 0) > (death.last_sign or 0) and not self._search.is_old(sign):
                self._search.alone[run.run_id] = "another process has begun to feed it"
                return False
            death.server.kill(run.run_id, max(run.last_sign or 0, run.started_at), death.why)
        except DeliveryError as error:
            self._search.faults.append(f"{death.server.name}: run {death.run.run_id}: {error}")
            return False
        return True
