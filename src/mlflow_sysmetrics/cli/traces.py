"""Runs in journals: what a process that is gone left behind of one, and which ones a living process feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_sysmetrics.cli.spooled import SpooledJournal, SpooledRun


@dataclass(frozen=True, slots=True)
class Trace:
    """A run in an orphaned journal."""

    journal: SpooledJournal
    run: SpooledRun

    @property
    def last_sign(self) -> int:
        """Milliseconds since 1970 of its newest point in there; of the last write where none is left.

        Whoever delivers a journal puts that time back, but may be killed before.
        """
        return self.journal.written_at if self.run.newest is None else self.run.newest


def runs_left(journals: Sequence[SpooledJournal]) -> dict[str, list[Trace]]:
    """Returns the runs that were not detached when their process ended: their traces, the newest first."""
    found: dict[str, list[Trace]] = {}
    for journal in journals:
        for spooled in journal.runs if journal.orphaned else ():
            if not spooled.journaled.ended:
                found.setdefault(spooled.journaled.run_id, []).append(Trace(journal, spooled))
    return {run: sorted(one, key=lambda trace: trace.last_sign, reverse=True) for run, one in found.items()}


def feeding(journals: Sequence[SpooledJournal]) -> dict[str, str]:
    """Returns the runs that a living process feeds, or another user's, with who that is."""
    return {
        run.journaled.run_id: f"{journal.owner}, feeds it"
        for journal in journals
        for run in journal.runs
        if not journal.orphaned and not run.journaled.ended
    }


def newest_values(
    traces: Sequence[Trace], last_sign: int | None, system: Mapping[str, float]
) -> tuple[int | None, dict[str, float]]:
    """Returns time and values of the newest points, of which the server may not have the last ones yet.

    Args:
        traces: the run in journals, the newest first.
        last_sign: what its server says.
        system: the same.
    """
    newest, values = last_sign, dict(system)
    for trace in reversed(traces):
        values.update(trace.run.latest)
        if trace.run.newest is not None:
            newest = max(newest or 0, trace.run.newest)
    return newest, values
