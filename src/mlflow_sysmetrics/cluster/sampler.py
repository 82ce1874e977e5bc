"""One sampler per node and run: attaches the run in the process that is elected, and waits in the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from mlflow_sysmetrics.cluster.election import (
    Election,
    Member,
    NodeRecord,
    base_directory,
    digest,
    smallest_rank,
    this_member,
)
from mlflow_sysmetrics.cluster.gpus import scope_of
from mlflow_sysmetrics.cluster.handover import has_made_last_point, refusal, seconds_to_next_step, take_over
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.node import node_identity, node_name
from mlflow_sysmetrics.cluster.rendezvous import Announcement, Location
from mlflow_sysmetrics.cluster.tags import RunTags, has_owner, job_tag
from mlflow_sysmetrics.daemon import launch
from mlflow_sysmetrics.daemon.arguments import check_timeout
from mlflow_sysmetrics.daemon.process import Attachment, prepare
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.host import JOB_SCOPE, Host
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, RLock
from mlflow_sysmetrics.settings import Settings

THREAD_NAME = "sysmetrics-node"
EXPLICIT = "start_node_sampler"  #: the holder of those who call that
FOLLOWER = "follower"  #: the holder of a program that does not know the run

# A leader that was killed is replaced within two seconds: one pause, and the rest of the second that its last
# point may belong to.
_PAUSE_SECONDS = 0.5
_RESCAN_SECONDS = 10.0  # a member that was killed changes nothing in the directory
_LAST_POINT_SECONDS = 5.0  # a source may hang

_ENDED = "the run has ended"
_NO_ELECTION = "mlflow-sysmetrics: No election of one process per node: %s."

_logger = Log()


class NodeSampler:
    """The part of this process in sampling its node for one run. From `start_node_sampler`.

    Attributes:
        run_id: the run.
        tracking_uri: its tracking server.
        node_name: name of this node in the keys; None for plain keys, or while another process leads that
            has not chosen it yet.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str,
        settings: Settings,
        *,
        job: Job | None,
        given_name: str | None = None,
        started_at: int | None = None,
        host: Host | None = None,
        forget: Callable[[NodeSampler], None] = lambda _: None,
    ) -> None:
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self.node_name = settings.node_id or given_name
        self.reason: str | None = None
        self._settings = settings
        self._job = job
        self._given_name = given_name
        self._started_at = started_at
        self._host = host or Host()
        self._forget = forget
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._holders: list[object] = []
        self._owner = self._is_told = False
        self._announced = True
        self._pid, self._parent = os.getpid(), os.getppid()
        self._member = this_member(node_rank=None if job is None else job.node_rank, pids=(os.getpid(),))
        self._election: Election | None = None
        self._attachment: Attachment | None = None
        self._over = self._begins = False
        self._wake = Event()
        self._rescan_at = 0.0
        self._created = time.time()
        self._announcement = Announcement(os.environ)
        self._tags = RunTags(job)
        self._loop = Loop(self._step, THREAD_NAME)

    @property
    def is_leader(self) -> bool:
        """Whether this process samples the node."""
        return self._attachment is not None and not self._over

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or this process has left."""
        return self._over

    def close(self, timeout: float | None = None) -> bool:
        """Ends the part of this process; another process of the job on this node goes on.

        Args:
            timeout: longest wait in seconds for the delivery of the last points; None means
                `MLFLOW_SYSMETRICS_FLUSH_TIMEOUT`; 0 does not wait.

        Returns:
            True if all points were delivered, or this process has sampled nothing, or `start_node_sampler`
            was called more often than this.

        Raises:
            TypeError: `timeout` is not a number.
            SettingsError: `timeout` is NaN.
        """
        check_timeout(timeout)
        return self.drop(EXPLICIT, timeout)

    def __enter__(self) -> NodeSampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For this package.

    @property
    def own(self) -> dict[str, Any]:
        """What this process tells the leader about itself, as arguments of `this_member`."""
        return {"node_rank": self._member.node_rank, "pids": self._member.pids}

    def describe(self, tags: Mapping[str, str] | None, *, resumed: bool) -> None:
        """Has this host's tags put on the run, of which this process is the owner, as for any other run.

        Args:
            tags: what the run has; None if unknown.
            resumed: whether it existed before.
        """
        self._tags.describe(tags, resumed=resumed)

    def follow(self) -> None:
        """Holds the sampler for a program that does not know the run."""
        self.hold(FOLLOWER)

    def unfollow(self) -> None:
        """Drops the hold of `follow`."""
        if FOLLOWER in self._holders:
            self.drop(FOLLOWER, 0)

    def hold(self, holder: object, *, owner: bool = False, announced: bool = True) -> None:
        """Adds a holder: the sampler lives until the last one has dropped it.

        Args:
            holder: for `drop`.
            owner: whether its program owns the run.
            announced: whether other processes of the job are to find the run.
        """
        with self._lock:
            self._holders.append(holder)
            self._owner = self._owner or owner
            self._announced = self._announced and announced

    def begin(self, member: Member | None = None) -> None:
        """Joins the election, in the calling thread, and attaches the run if this process wins it.

        Args:
            member: what to tell the leader; by default this process.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        with self._lock:
            if self._election is not None or self._over:
                return
            self._member = replace(member or self._member, owns=self._owns())
            self._election = self._enter()
        self._try_to_lead(wait=False)
        if not self._over or self._attachment is not None:
            self._loop.start()

    def update(self, *, pids: Sequence[int], gpus: Sequence[str]) -> None:
        """Replaces what the leader knows of the job here, which from then on may be without processes."""
        with self._lock:
            self._is_told = True
            self._member = replace(self._member, pids=tuple(pids), gpus=tuple(gpus))
            if self._election is not None and not self._over:
                self._election.join(self._member)

    def drop(self, holder: object, timeout: float | None = None, *, ended: bool = False) -> bool:
        """Removes a holder; the last one leaves the election.

        Args:
            holder: from `hold`.
            timeout: as in `close`.
            ended: True if the run is over if this process owns it, as after `mlflow.end_run`.

        Returns:
            As in `close`.
        """
        if os.getpid() != self._pid:
            return True
        with self._lock:
            if holder in self._holders:
                self._holders.remove(holder)
            if self._holders:
                return True
            if ended and self._owner:
                self._record_end()
        return self._leave(timeout)

    def _owns(self) -> str | None:
        return self._job.key if self._owner and self._announced and self._job is not None else None

    def _enter(self) -> Election | None:
        key = digest(self.tracking_uri, self.run_id, node_identity(self._host))
        try:
            election = Election(base_directory(), key)
        except Unavailable as error:
            _logger.info(_NO_ELECTION, error)
            return None
        election.join(self._member)
        return election

    def _step(self) -> bool:
        """Leads, or waits to lead; returns whether the thread goes on."""
        self._wake.wait(_PAUSE_SECONDS)
        if not self._over:
            self._go_on()
        if self._over:
            self._let_others_lead(_LAST_POINT_SECONDS)
        return not self._over

    def _go_on(self) -> None:
        if self._is_orphan():
            self.reason = "the processes of the job are gone"
            self._leave(None)
            return
        if self._owner and self._announced:
            self._announcement.make(Location(self.tracking_uri, self.run_id, self._started_at))
        if self._attachment is None:
            launch.call_in_loader(self._try_to_lead)
        else:
            self._lead_on()

    def _is_orphan(self) -> bool:
        """Returns whether the launcher of this process is gone, or all processes that it was to sample."""
        if self._holders == [FOLLOWER] and os.getppid() != self._parent:
            return True
        return not self._is_told and self._member.is_for_processes_that_are_gone

    def _try_to_lead(self, *, wait: bool = True) -> None:
        """Attaches the run if no other process of this node samples it."""
        if not self._is_elected():
            return
        election, free_at = self._election, time.time_ns() // 1_000_000
        record = None if election is None else election.record()
        if record is not None and record.ended_at >= self._created:
            self.reason = _ENDED
            self._leave(0)
            return
        members = [] if election is None else election.members()
        name = self._choose_name(record, members)
        if record is not None and wait:
            self._wake.wait(seconds_to_next_step(self._started_at))
        settings = replace(self._settings, node_id=name)
        self._share(members)
        attachment = prepare(self.run_id, self.tracking_uri, settings)
        with self._lock:
            if self._over:
                return
            self.node_name = name
            self._attachment = attachment  # before it begins, so that whoever leaves now ends it
            self._begins = True
        if election is not None:
            take_over(attachment, election, record, free_at)
        attachment.begin(settings, self._started_at)
        self._begins = False
        if self._over:
            attachment.release()
            return
        if not self._owner:
            attachment.watch_end(self._hear_of_end)
        if election is not None:
            election.agree(NodeRecord(name=name, started_at=self._started_at))
            election.has_changed()
        self._put_tags(members)

    def _is_elected(self) -> bool:
        """Returns whether this process has the lock; without files it is the first one of each node."""
        election = self._election
        if election is None:
            return self._job is None or not self._job.local_rank
        try:
            leads = election.lead()
        except Unavailable as error:  # a filesystem without locks
            _logger.info(_NO_ELECTION, error)
            self._election = None
            return False
        if not leads and self.node_name is None:
            record = election.record()
            self.node_name = None if record is None else record.name
        return leads

    def _choose_name(self, record: NodeRecord | None, members: Sequence[Member]) -> str | None:
        if self._settings.node_id is not None:
            return self._settings.node_id
        if record is not None:
            self._started_at = self._started_at or record.started_at
            return record.name
        if self._given_name is not None:
            return self._given_name
        return node_name(self._job, smallest_rank([self._member, *members]), self._host)

    def _hear_of_end(self, tags: Mapping[str, str]) -> None:
        # A secondary process that calls `mlflow.end_run` ends the run on the server, not for its owner.
        if not self._owner and not has_owner(tags):
            self.reason = _ENDED
            self._wake.set()

    def _lead_on(self) -> None:
        """Follows the members of this node, and hears of the end of the run."""
        attachment = self._attachment
        if attachment is not None:
            self.reason = self.reason or refusal(attachment)
        if self.reason is not None:
            self._leave(0)
            return
        election = self._election
        if election is None:
            return
        now = time.monotonic()
        if not election.keeps_leading(now):
            self._leave(0)
            return
        if not election.has_changed() and now < self._rescan_at:
            return
        self._rescan_at = now + _RESCAN_SECONDS
        record = election.record()
        if record is not None and record.ended_at >= self._created:
            self.reason = _ENDED
            self._leave(None)
            return
        members = election.members()
        election.has_changed()  # what `members` has deleted is no news
        self._share(members)
        self._put_tags(members)

    def _share(self, members: Sequence[Member]) -> None:
        """Has the collectors read the processes and GPUs of all members."""
        roots, gpus = scope_of(self._member, members, self._job)
        JOB_SCOPE.update(() if roots == [self._pid] else roots, gpus)

    def _put_tags(self, members: Sequence[Member]) -> None:
        if self._attachment is not None:
            owned = next((member.owns for member in members if member.owns), None) or self._owns()
            self._tags.put(self._attachment, self.node_name, owned, host_tags=self._settings.tags)

    def _record_end(self) -> None:
        election, attachment = self._election, self._attachment
        if election is not None:
            election.end()
        key = self._owns()
        if attachment is not None and key is not None:
            attachment.put_tags(job_tag(key, ended=True))

    def _leave(self, timeout: float | None) -> bool:
        with self._lock:
            self._over = True
            attachment = self._attachment
        self._wake.set()
        self._forget(self)
        try:
            return attachment is None or attachment.detach(timeout)
        finally:
            self._let_others_lead(0)

    def _let_others_lead(self, wait: float) -> None:
        """Leaves the election after the last point of this process; if there is no wait, the thread does."""
        may = has_made_last_point(self._attachment, wait) and not self._begins
        if self._election is not None and (may or wait):
            self._election.leave()

    def end_with_process(self) -> None:
        """Says what the others on this node need to know, at the end of this process."""
        with self._lock:
            if self._owner and not self._over:
                self._record_end()
