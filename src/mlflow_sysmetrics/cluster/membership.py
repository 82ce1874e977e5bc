"""A run of `mlflow.start_run` in a process that is one of several of a job."""

from __future__ import annotations

import os
from typing import Any

from mlflow_sysmetrics.cluster import following
from mlflow_sysmetrics.cluster.election import this_member
from mlflow_sysmetrics.cluster.gpus import visible_gpus
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.rendezvous import RUN, Location
from mlflow_sysmetrics.cluster.sampler import NodeSampler
from mlflow_sysmetrics.cluster.start import sampler_of
from mlflow_sysmetrics.daemon.process import tell_engines
from mlflow_sysmetrics.settings import Settings

_PARENT = "mlflow.parentRunId"


class Membership:
    """Takes part in sampling this node for a run, in the place of an `Attachment`.

    Args:
        sampler: this process's sampler for the run.
        job: the job.
        run: the run, as `mlflow.start_run` has it; None if it is not known.
        settings: of the run.
    """

    def __init__(self, sampler: NodeSampler, job: Job, run: Any, settings: Settings) -> None:
        self.run_id, self.tracking_uri = sampler.run_id, sampler.tracking_uri
        self._sampler = sampler
        self._job = job
        self._run = run
        self._settings = settings
        self._exported: str | None = None
        self._is_detached = False

    @classmethod
    def of(cls, run_id: str, tracking_uri: str | None, settings: Settings, run: Any) -> Membership | None:
        """Returns the part of this process in a run; None if the launcher does not number its processes."""
        job = Job.from_environ(os.environ)
        if job is None or not job.is_several:
            return None
        started_at = None if run is None else run.info.start_time
        sampler = sampler_of(run_id, tracking_uri, settings, job=job, started_at=started_at)
        return cls(sampler, job, run, settings)

    def begin(self, *, resumed: bool) -> None:
        """Joins the election of this node.

        Args:
            resumed: whether the run existed before. One that did belongs to the first process of the job.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        sampler = self._sampler
        tags = None if self._run is None else self._run.data.tags
        owner = not resumed or not self._job.rank
        # A run inside another one, such as a trial, is this process's own.
        announced = _PARENT not in (tags or {})
        sampler.hold(self, owner=owner, announced=announced)
        if owner:
            sampler.describe(tags, resumed=resumed)
        if announced:
            location = Location(sampler.tracking_uri, sampler.run_id)
            following.entered(location)
            if RUN not in os.environ:
                self._exported = os.environ[RUN] = location.text
        try:
            sampler.begin(this_member(**sampler.own, gpus=visible_gpus(self._job)))
        except BaseException:  # of a signal handler, or no thread can be started: another process may lead
            self.release()
            raise
        if owner:
            tell_engines(self, self._settings)

    @property
    def is_attached(self) -> bool:
        """Whether the run has not been detached, and has not ended."""
        return not (self._is_detached or self._sampler.is_over)

    def detach(self, timeout: float | None = None) -> bool:
        """Ends the part of this process; the owner of the run ends the sampling of all nodes.

        Args:
            timeout: as in `Attachment.detach`.

        Returns:
            As `Attachment.detach`.
        """
        self._is_detached = True
        self._unexport()
        self._sampler.unfollow()
        return self._sampler.drop(self, timeout, ended=True)

    def release(self) -> None:
        """Ends the part of this process without waiting for anything. Safe to call again."""
        self.detach(0)

    def _unexport(self) -> None:
        if self._exported is not None and os.environ.get(RUN) == self._exported:
            del os.environ[RUN]
