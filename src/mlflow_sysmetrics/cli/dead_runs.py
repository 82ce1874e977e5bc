"""Finds runs that are still RUNNING although their process is dead, and why it died."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.output import age_seconds, length_of_time
from mlflow_sysmetrics.cli.spooled_journals import (
    OrphanedRun,
    SpooledJournal,
    fed_runs,
    newest_values,
    orphaned_runs,
)
from mlflow_sysmetrics.cli.tracked_runs import TrackedRun, TrackingServer
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.machine.kept_files import read_short
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import is_trusted, redacted, with_secrets
from mlflow_sysmetrics.preflight.remedies import credentials_sent, remedy

UNKNOWN_CAUSE = "the process died without reporting a reason"
_MILLISECONDS = 1000
# A run has a point a minute at least by default; add clock skew between hosts, and a program that keeps
# logging for some time after its last point.
_QUIET_SECONDS = 120.0
_OOM_FILES = ("memory.events", "memory.oom_control")  # cgroup v2 and v1
_MEMORY_SERIES = "/system_memory_usage_percentage"
# The kernel kills at 100 %, but a point is the mean of up to ten seconds, and only the last are full.
_FULL_PERCENT = 95


@dataclass(frozen=True, slots=True)
class DeadRun:
    """A run whose process is considered dead.

    Attributes:
        run: what its server says about it.
        server: that server.
        cause: what is known about why its process died.
        last_sign: milliseconds since 1970 of its newest point, on the server or in a journal; None if it has
            none.
        journals: the journals that its processes left on this machine, the newest first; a run that was
            resumed may have died more than once.
        waiting: points in these journals that must be delivered first.
    """

    run: TrackedRun
    server: TrackingServer
    cause: str
    last_sign: int | None
    journals: tuple[Path, ...] = ()
    waiting: int = 0


@dataclass(slots=True)
class DeadRunSearch:
    """Searches for dead runs in the journals of this machine and on one tracking server.

    Attributes:
        tracking_uri: the server to search, with its credentials; None to search the journals only.
        older_than: seconds without a point after which a run is considered dead.
        experiments: names of the experiments to search; empty for all.
        any_host: include the runs of other hosts.
        alone: run id -> why a run that looked dead was left alone.
        faults: what could not be determined.
    """

    tracking_uri: str | None
    older_than: float
    experiments: Sequence[str] = ()
    any_host: bool = False
    alone: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _servers: dict[str, TrackingServer | None] = field(default_factory=dict)

    def dead_runs(self, journals: Sequence[SpooledJournal]) -> list[DeadRun]:
        """Returns the dead runs, those in this machine's journals first.

        Raises:
            LookupError: the searched server has no experiment of a given name.
        """
        fed = fed_runs(journals)
        found = list(self._in_journals(journals, fed))
        if self.tracking_uri is not None:
            seen = {dead.run.run_id for dead in found} | set(self.alone)
            try:
                found += self._on_server(self.tracking_uri, fed, seen)
            except Fault as error:
                self._add_fault(self.tracking_uri, error)
        return found

    def server(self, uri: str) -> TrackingServer | None:
        """Returns the server of a journalled URI, with the given credentials; None if it is unreachable."""
        chosen = () if self.tracking_uri is None else (self.tracking_uri,)
        wanted = with_secrets(uri, chosen)
        if wanted not in self._servers:
            try:
                self._servers[wanted] = TrackingServer(wanted, trusted=is_trusted(wanted, chosen))
            except Fault as error:
                self._servers[wanted] = None
                self._add_fault(wanted, error)
        return self._servers[wanted]

    def is_old(self, timestamp: int) -> bool:
        """Returns whether a last sign of life is old enough to consider the run dead on that ground alone."""
        return age_seconds(timestamp) > self.older_than

    def _in_journals(self, journals: Sequence[SpooledJournal], fed: Mapping[str, str]) -> Iterator[DeadRun]:
        for run_id, orphans in orphaned_runs(journals).items():
            if run_id in fed:
                self.alone[run_id] = fed[run_id]
                continue
            if (dead := self._dead(orphans)) is not None:
                yield dead

    def _dead(self, orphans: Sequence[OrphanedRun]) -> DeadRun | None:
        """Returns a run in orphaned journals, the newest first, if it is dead and its server says RUNNING."""
        last = orphans[0]
        known = last.run.journaled
        server = self.server(known.tracking_uri)
        if server is None:
            return None
        try:
            run = server.run(known.run_id)
            if run is None or not run.running or not self._is_wanted(server, run):
                return None
        except Fault as error:
            self._add_fault(server.uri, error)
            self._servers[server.uri] = None  # do not ask a server that is down about every run
            return None
        if (why := self._may_be_fed(run, orphans)) is not None:
            self.alone[known.run_id] = why
            return None
        newest, system = newest_values(orphans, run.last_sign, run.system)
        # A cgroup path of another host may exist here with a different meaning.
        cgroup = known.cgroup if last.journal.here else None
        paths = tuple(orphan.journal.path for orphan in orphans)
        waiting = sum(orphan.run.waiting for orphan in orphans)
        return DeadRun(run, server, cause_of_death(cgroup, known.oom_kills, system), newest, paths, waiting)

    def _may_be_fed(self, run: TrackedRun, orphans: Sequence[OrphanedRun]) -> str | None:
        """Returns why a run in orphaned journals may still be fed; None if it is not."""
        mine = orphans[0].last_sign
        theirs = run.last_sign or 0
        # The writer of this journal did not send that point: the run was resumed, or another node feeds it.
        if theirs - mine > _QUIET_SECONDS * _MILLISECONDS and not self.is_old(theirs):
            return "another process feeds it"
        age = age_seconds(max(theirs, *(max(one.last_sign, one.journal.written_at) for one in orphans)))
        if age < min(_QUIET_SECONDS, self.older_than):
            return f"its last sign of life is {length_of_time(age)} old; try again in two minutes"
        return None

    def _on_server(self, uri: str, fed: Mapping[str, str], seen: set[str]) -> Iterator[DeadRun]:
        server = self.server(uri)
        if server is None:
            return
        here = platform.node()  # the source of the tag sys.hostname
        for run in server.sampled_runs(self.experiments):
            # A run without any system point may never have been sampled: log_system_metrics=False.
            if run.run_id in seen or run.last_sign is None or not run.system:
                continue
            if not self.is_old(run.last_sign) or not (self.any_host or run.hostname == here):
                continue
            if run.run_id in fed:
                self.alone[run.run_id] = fed[run.run_id]
                continue
            yield DeadRun(run, server, cause_of_death(None, None, run.system), run.last_sign)

    def _is_wanted(self, server: TrackingServer, run: TrackedRun) -> bool:
        if not self.experiments:
            return True
        try:
            return run.experiment_id in server.experiment_ids(self.experiments)
        except LookupError:
            return False  # not the server whose experiments were named

    def _add_fault(self, uri: str, error: Fault) -> None:
        sent = credentials_sent(uri) if error.refuses_credentials else "no credentials"
        fault = f"{redacted(uri)}: {error.reason.rstrip('.')}. {remedy(error, uri, sent) or ''}".rstrip()
        if fault not in self.faults:
            self.faults.append(fault)


def cause_of_death(cgroup: str | None, kills_before: int | None, system: Mapping[str, float]) -> str:
    """Returns what the kernel's counters or the last points say about why a run's process died.

    Args:
        cgroup: directory of its memory cgroup on this machine; None if unknown.
        kills_before: the kill count of that cgroup when the run began.
        system: newest value of each ``system/`` series of the run.
    """
    counted_kills = _oom_kills(cgroup) if cgroup is not None else None
    if counted_kills is not None and kills_before is not None and counted_kills[1] > kills_before:
        file, kills = counted_kills[0], counted_kills[1] - kills_before
        return f"out of memory: {file} counted {kills} kill{'' if kills == 1 else 's'}"
    fullest = max((value for key, value in system.items() if key.endswith(_MEMORY_SERIES)), default=0.0)
    if fullest >= _FULL_PERCENT:
        return f"out of memory likely: memory at {fullest:.0f} % in the last point"
    return UNKNOWN_CAUSE


def _oom_kills(cgroup: str) -> tuple[str, int] | None:
    """Returns the file in which a cgroup counts kills, and the count; None if the cgroup is gone."""
    # The journal has the path absolute, or relative to the root of the host; both are the same here.
    directory = Path("/") / cgroup
    for name in _OOM_FILES:
        try:
            kills = number_after(b"oom_kill ", read_short(str(directory / name)))
        except OSError:
            continue
        if kills is not None:
            return name, kills
    return None
