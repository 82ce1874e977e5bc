"""Takes part in the run of a job in a process whose program does not start it.

Begun when MLflow is imported, in a thread: the program neither waits for it nor notices that it fails. What
it needs is imported once MLflow is there, by the thread that loads the daemon, for which a fork waits.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from mlflow_sysmetrics.daemon import launch
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.runtime.native import Event
from mlflow_sysmetrics.runtime.threads import start_thread

if TYPE_CHECKING:
    from mlflow_sysmetrics.cluster.rendezvous import Location

THREAD_NAME = "sysmetrics-follow"

_RUN_ID = "MLFLOW_RUN_ID"
_LOOK_SECONDS = 1.0
_IMPORT_LOOK_SECONDS = 0.05
_LONGEST_IMPORT_SECONDS = 300.0

_follower: Follower | None = None


def start(*, in_job: bool) -> None:
    """Begins to follow the run of the job, or to attach the run of the environment. Raises nothing.

    Args:
        in_job: whether this process may be one of several of a job.
    """
    global _follower  # noqa: PLW0603 - one per process
    # Processes that a rank starts inherit its environment, and are not ranks.
    if _follower is not None or multiprocessing.parent_process() is not None:
        return
    _follower = Follower(in_job=in_job)
    with contextlib.suppress(ThreadUnavailable):
        start_thread(_follower.run, THREAD_NAME)


def entered(location: Location) -> None:
    """Ends the search, because the program has started a run itself; other runs are no longer followed."""
    if _follower is not None:
        _follower.enter(location)


class Follower:
    """Looks for the run of the job and takes part in it.

    Args:
        in_job: as in `start`.
    """

    def __init__(self, *, in_job: bool) -> None:
        self._in_job = in_job
        # `mlflow.start_run` removes it.
        self._environ = {**os.environ}
        self._stopped = Event()
        self._location: Location | None = None
        self._sampler: Any = None
        self._file: Any = None
        self._attachment: Any = None
        self._job: Any = None

    def run(self) -> None:
        """Runs in the thread, to its end."""
        with contextlib.suppress(Exception):  # nobody is told: the program has not asked for anything
            if not self._wait_for_mlflow():
                return
            if self._in_job:
                self._follow()
            elif self._environ.get(_RUN_ID):
                launch.call_in_loader(self._attach)

    def enter(self, location: Location) -> None:
        """Ends the search: the program knows the run."""
        self._stopped.set()
        self._location = location
        sampler, file = self._sampler, self._file
        if file is not None:
            file.publish(location)
        if sampler is not None and (sampler.tracking_uri, sampler.run_id) != location[:2]:
            sampler.unfollow()

    def _wait_for_mlflow(self) -> bool:
        """Waits until the program has imported MLflow: two threads that import it get in each other's way."""
        ends = time.monotonic() + _LONGEST_IMPORT_SECONDS
        while time.monotonic() < ends:
            module = sys.modules.get("mlflow")
            if module is not None and not getattr(module.__spec__, "_initializing", False):
                return True
            self._stopped.wait(_IMPORT_LOOK_SECONDS)
        return False

    def _attach(self) -> None:
        """Attaches the run of the environment until the end of the process."""
        from mlflow_sysmetrics.daemon.process import attach

        self._attachment = attach(self._environ[_RUN_ID].strip())

    def _follow(self) -> None:
        found: list[Any] = []
        launch.call_in_loader(lambda: found.append(self._prepare()))
        rendezvous, election = found[0]
        if rendezvous is None:
            return
        try:
            location = self._search(rendezvous)
            if location is not None and not self._stopped.is_set():
                launch.call_in_loader(lambda: self._join(location))
        finally:
            if election is not None:
                election.leave()

    def _prepare(self) -> tuple[Any, Any]:
        """Imports what is needed, and returns how to find the run."""
        from mlflow_sysmetrics.cluster import rendezvous
        from mlflow_sysmetrics.cluster.election import Election, base_directory, digest
        from mlflow_sysmetrics.cluster.job import Job
        from mlflow_sysmetrics.cluster.node import node_identity
        from mlflow_sysmetrics.errors import Unavailable
        from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri

        self._job = job = Job.from_environ(self._environ)
        if job is None or not job.is_several:
            return None, None
        known = rendezvous.location_in(self._environ, current_tracking_uri)
        if known is not None:
            return rendezvous.Known(known), None
        election = None
        with contextlib.suppress(Unavailable):
            election = Election(base_directory(), digest("job", job.key or "", node_identity()))
        near, server, file = rendezvous.sources(job, election, self._environ, current_tracking_uri)
        self._file = file
        if self._location is not None and file is not None:
            file.publish(self._location)  # the program was faster

        def may_ask() -> bool:
            return not job.local_rank if election is None else election.lead()

        return rendezvous.Rendezvous(near, server, may_ask, time.monotonic()), election

    def _search(self, rendezvous: Any) -> Location | None:
        while not self._stopped.is_set() and not rendezvous.is_over(time.monotonic()):
            location: Location | None = rendezvous.look(time.monotonic())
            if location is not None:
                return location
            self._stopped.wait(_LOOK_SECONDS)
        return None

    def _join(self, location: Location) -> None:
        from mlflow_sysmetrics.cluster.election import this_member
        from mlflow_sysmetrics.cluster.gpus import visible_gpus
        from mlflow_sysmetrics.cluster.start import sampler_of
        from mlflow_sysmetrics.settings import Settings

        if self._file is not None:
            self._file.publish(location)
        settings = Settings.from_environ()
        if not settings.metrics:
            return
        self._sampler = sampler = sampler_of(
            location.run_id,
            location.tracking_uri,
            settings,
            job=self._job,
            started_at=location.started_at,
        )
        sampler.follow()
        sampler.begin(this_member(**sampler.own, gpus=visible_gpus(self._job)))


def _forget_parent() -> None:
    global _follower  # noqa: PLW0603
    _follower = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
