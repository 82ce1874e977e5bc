"""Which runs still say RUNNING although nothing samples them any more, and why."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_sysmetrics.cli.options import spoken
from mlflow_sysmetrics.cli.spooled import SpooledJournal, Trace, feeding, newest_values, runs_left
from mlflow_sysmetrics.cli.tracked_runs import TrackedRun, TrackingServer
from mlflow_sysmetrics.collectors.kernel_files import number_after
from mlflow_sysmetrics.daemon.delivery.credential_scope import is_trusted
from mlflow_sysmetrics.machine.host import read_short
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted, with_secrets

# FOLDED causes: Why a process ended without a word, as far as the kernel or its last points tell.

UNKNOWN = "the process ended without a word"
_COUNTS = ("memory.events", "memory.oom_control")  # of cgroup v2 and v1
_MEMORY = "/system_memory_usage_percentage"
# The kernel kills at the limit. A point is the mean of up to ten seconds of which the last are the fullest.
_FULL_PERCENT = 95


def cause(cgroup: str | None, kills_before: int | None, system: Mapping[str, float]) -> str:
    """Returns what is known of the end of a run's process.

    Args:
        cgroup: directory of its memory control group on this machine; None where it is not known.
        kills_before: what that group had counted when the run began.
        system: newest value of each ``system/`` series of the run.
    """
    found = _kills(cgroup) if cgroup is not None else None
    if found is not None and kills_before is not None and found[1] > kills_before:
        file, kills = found[0], found[1] - kills_before
        return f"out of memory: {file} counted {kills} kill{'' if kills == 1 else 's'}"
    fullest = max((value for key, value in system.items() if key.endswith(_MEMORY)), default=0.0)
    if fullest >= _FULL_PERCENT:
        return f"out of memory likely: memory at {fullest:.0f} % in the last point"
    return UNKNOWN


def _kills(cgroup: str) -> tuple[str, int] | None:
    """Returns which file of a group counts its kills, and how many; None where the group is gone."""
    # Absolute in the journal or relative to the root of the host: both are the same here.
    directory = Path("/") / cgroup
    for name in _COUNTS:
        try:
            kills = number_after(b"oom_kill ", read_short(str(directory / name)))
        except OSError:
            continue
        if kills is not None:
            return name, kills
    return None


_MILLISECONDS = 1000
# A point every ten seconds is the default, clocks differ by seconds, and a program may go on logging for some
# after its last point.
_QUIET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Death:
    """A run whose process is taken to be gone.

    Attributes:
        run: what its server says of it.
        server: that server.
        why: what is known of its end.
        last_sign: milliseconds since 1970 of its newest point, here or there; None where it has none.
        journals: what its processes left on this machine, the newest first; one that was resumed may have
            died more than once.
        waiting: points of it in there that are to be delivered first.
    """

    run: TrackedRun
    server: TrackingServer
    why: str
    last_sign: int | None
    journals: tuple[Path, ...] = ()
    waiting: int = 0


@dataclass(slots=True)
class Search:
    """Looks for dead runs, in the journals of this machine and on one tracking server.

    Attributes:
        tracking_uri: the server to search, with its credentials; None for the journals alone.
        older_than: seconds after which a run without a point is taken to be dead.
        experiments: names of the experiments to look at; none for all.
        any_host: takes the runs of other machines, too.
        alone: run id -> why a run was left alone that would else be dead.
        faults: what could not be found out.
    """

    tracking_uri: str | None
    older_than: float
    experiments: Sequence[str] = ()
    any_host: bool = False
    alone: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _servers: dict[str, TrackingServer | None] = field(default_factory=dict)

    def deaths(self, journals: Sequence[SpooledJournal]) -> list[Death]:
        """Returns the dead runs, those of this machine's journals first.

        Raises:
            LookupError: the server to search has no experiment of a name.
        """
        living = feeding(journals)
        found = list(self._in_journals(journals, living))
        if self.tracking_uri is not None:
            seen = {death.run.run_id for death in found} | set(self.alone)
            try:
                found += self._on_server(self.tracking_uri, living, seen)
            except Fault as error:
                self._fault(self.tracking_uri, str(error))
        return found

    def server(self, uri: str) -> TrackingServer | None:
        """Returns the server of a journalled URI, with the credentials that were given; None if it fails."""
        chosen = () if self.tracking_uri is None else (self.tracking_uri,)
        wanted = with_secrets(uri, chosen)
        if wanted not in self._servers:
            try:
                self._servers[wanted] = TrackingServer(wanted, trusted=is_trusted(wanted, chosen))
            except Fault as error:
                self._servers[wanted] = None
                self._fault(wanted, str(error))
        return self._servers[wanted]

    def is_old(self, timestamp: int) -> bool:
        """Tells whether a last sign of life is so old that the run is taken to be dead for that alone."""
        return _age(timestamp) > self.older_than

    def _in_journals(self, journals: Sequence[SpooledJournal], living: Mapping[str, str]) -> Iterator[Death]:
        for run_id, traces in runs_left(journals).items():
            if run_id in living:
                self.alone[run_id] = living[run_id]
                continue
            if (death := self._of(traces)) is not None:
                yield death

    def _of(self, traces: Sequence[Trace]) -> Death | None:
        """Returns the death of a run in orphaned journals, the newest first, if its server says RUNNING."""
        last = traces[0]
        known = last.run.journaled
        server = self.server(known.tracking_uri)
        if server is None:
            return None
        try:
            run = server.run(known.run_id)
            if run is None or not run.running or not self._is_wanted(server, run):
                return None
        except Fault as error:
            self._fault(server.uri, str(error))
            self._servers[server.uri] = None  # one that is down is not asked for every run
            return None
        if (why := self._feeding(run, traces)) is not None:
            self.alone[known.run_id] = why
            return None
        newest, system = newest_values(traces, run.last_sign, run.system)
        # The group of another host may have a namesake here.
        cgroup = known.cgroup if last.journal.here else None
        paths = tuple(trace.journal.path for trace in traces)
        waiting = sum(trace.run.waiting for trace in traces)
        return Death(run, server, cause(cgroup, known.oom_kills, system), newest, paths, waiting)

    def _feeding(self, run: TrackedRun, traces: Sequence[Trace]) -> str | None:
        """Returns why a run in orphaned journals may yet be fed; None where it is not."""
        mine = traces[0].last_sign
        theirs = run.last_sign or 0
        # Somebody has resumed it, or another node of its job feeds it: the writer of this journal did not.
        if theirs - mine > _QUIET_SECONDS * _MILLISECONDS and not self.is_old(theirs):
            return "another process feeds it"
        young = _age(max(theirs, *(max(one.last_sign, one.journal.written_at) for one in traces)))
        if young < min(_QUIET_SECONDS, self.older_than):
            return f"its last sign of life is {spoken(young)} old; try again in a minute"
        return None

    def _on_server(self, uri: str, living: Mapping[str, str], seen: set[str]) -> Iterator[Death]:
        server = self.server(uri)
        if server is None:
            return
        here = platform.node()  # as the tag sys.hostname is made
        for run in server.sampled_runs(self.experiments):
            # A run without any system point may never have been sampled: log_system_metrics=False.
            if run.run_id in seen or run.last_sign is None or not run.system:
                continue
            if not self.is_old(run.last_sign) or not (self.any_host or run.hostname == here):
                continue
            if run.run_id in living:
                self.alone[run.run_id] = living[run.run_id]
                continue
            yield Death(run, server, cause(None, None, run.system), run.last_sign)

    def _is_wanted(self, server: TrackingServer, run: TrackedRun) -> bool:
        if not self.experiments:
            return True
        try:
            return run.experiment_id in server.experiment_ids(self.experiments)
        except LookupError:
            return False  # another server than the one whose experiments were named

    def _fault(self, uri: str, reason: str) -> None:
        fault = f"{redacted(uri)}: {reason}"
        if fault not in self.faults:
            self.faults.append(fault)


def age(death: Death) -> str:
    """Returns how long ago the run gave its last sign of life, for people."""
    return "-" if death.last_sign is None else spoken(_age(death.last_sign))


def _age(timestamp: int) -> float:
    return time.time() - timestamp / _MILLISECONDS
