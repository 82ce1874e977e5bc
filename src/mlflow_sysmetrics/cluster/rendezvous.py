"""Finds the run of a job that another process has started, on this node or another one.

In this order: `MLFLOW_SYSMETRICS_RUN` and `MLFLOW_RUN_ID` in the environment, which cost nothing; a file in
which a process of this node has written what it knows; the store of torchrun's agent, if torch is loaded; and
the tag `sysmetrics.job` of the run on the tracking server, for which one process per node asks, less and less
often.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from mlflow_sysmetrics.cluster.election import Election, read, write
from mlflow_sysmetrics.cluster.job import Job
from mlflow_sysmetrics.cluster.tags import JOB_TAG, is_open
from mlflow_sysmetrics.mlflow_api.fluent_state import ExperimentChoice, experiment_of_environment
from mlflow_sysmetrics.mlflow_api.runs import FoundRun, open_runs
from mlflow_sysmetrics.runtime.process_identity import is_gone, this_process

RUN = "MLFLOW_SYSMETRICS_RUN"  #: the run of the job, <tracking URI>#<run id>
_SEPARATOR = "#"
GIVE_UP_SECONDS = 600.0
# A node asks 1, 4, 13 and 40 s after its start, and then every 30 s: four times where the owner starts its
# run while the other nodes start.
_FIRST_SECONDS = 1.0
_LONGER_BY = 3.0
_LONGEST_SECONDS = 30.0
_MOST_RUNS = 5
_MOST_LOOKS_COUNTED = 10
_LOOKS_IN_ONE = 4
_LOOKS_IN_LISTED = 3  # then experiments are listed anew
_FILE = "run.json"
_RUN_ID = "MLFLOW_RUN_ID"
# All processes of an attempt are started within this time, by clocks that differ by less.
_TOLERANCE_MILLISECONDS = 30_000
_MILLISECONDS = 1000
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_KEY = "mlflow-sysmetrics/run"
_CONNECT = timedelta(seconds=5)


class Location(NamedTuple):
    """A run of a tracking server.

    Attributes:
        tracking_uri: the server.
        run_id: the run.
        started_at: when it started, in milliseconds since 1970; None if unknown.
    """

    tracking_uri: str
    run_id: str
    started_at: int | None = None

    @property
    def text(self) -> str:
        """The value of `MLFLOW_SYSMETRICS_RUN`."""
        return f"{self.tracking_uri}{_SEPARATOR}{self.run_id}"


def parse_location(text: str) -> Location | None:
    """Returns the location in a value of `MLFLOW_SYSMETRICS_RUN`; None if it is not one."""
    uri, _, run_id = text.strip().rpartition(_SEPARATOR)
    return Location(uri, run_id) if uri and run_id and run_id.isprintable() else None


class Source(Protocol):
    """A place where a run may be found. It may raise anything, and is asked again later."""

    def find(self) -> Location | None:
        """Returns where the run is; None if that is not known yet."""


def location_in(environ: Mapping[str, str], tracking_uri: Callable[[], str]) -> Location | None:
    """Returns the run that the environment names.

    Args:
        environ: environment variables.
        tracking_uri: returns the tracking URI in use.
    """
    given = parse_location(environ.get(RUN, ""))
    if given is not None:
        return given
    run_id = environ.get(_RUN_ID, "").strip()
    return Location(tracking_uri(), run_id) if run_id else None


class Known:
    """A run that the environment names: there is nothing to look for.

    Args:
        location: the run.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._is_over = False

    def is_over(self, _now: float) -> bool:
        """Returns whether the run has ended."""
        return self._is_over

    def look(self, _now: float) -> Location:
        """Returns the run."""
        return self._location

    def restart(self, _over: Location, _now: float) -> None:
        """Ends the search: the environment names no other run."""
        self._is_over = True


class NodeFile:
    """What the processes of this node tell each other about the run of their job.

    Args:
        election: of the job on this node; its leader asks the server.
    """

    def __init__(self, election: Election) -> None:
        self._path = election.directory / _FILE
        found = read(self._path)
        #: Whether an earlier attempt of the job has left it behind.
        self.is_stale = found is not None and is_gone(found.get("process"))

    def find(self) -> Location | None:
        """Returns what a living process of this node knows."""
        found = read(self._path)
        if found is None or is_gone(found.get("process")):
            return None
        uri, run_id, started_at = found.get("tracking_uri"), found.get("run_id"), found.get("started_at")
        if not isinstance(uri, str) or not isinstance(run_id, str):
            return None
        return Location(uri, run_id, started_at if isinstance(started_at, int) else None)

    def publish(self, location: Location) -> None:
        """Tells the others."""
        write(self._path, {**location._asdict(), "process": this_process()})


class TorchStore:
    """The key-value store of torchrun's agent, if torch is loaded already: nothing of it is imported here.

    Args:
        environ: environment variables.
        after: milliseconds since 1970 before which the owner of the run had not started; None if any will do.
    """

    def __init__(self, environ: Mapping[str, str], after: int | None = None) -> None:
        self._address = environ.get("MASTER_ADDR", ""), environ.get("MASTER_PORT", "")
        self._after = after
        self._store: Any = None

    @staticmethod
    def is_promised(environ: Mapping[str, str]) -> bool:
        """Returns whether torchrun's agent has a store for its workers."""
        return environ.get(_AGENT_STORE) == "True"

    def find(self) -> Location | None:
        """Returns what the owner has told; None if it has not, or torch is not loaded.

        Raises:
            Exception: of torch's, if the agent does not answer.
        """
        store = self._connected()
        if store is None or not store.check([_KEY]):
            return None
        told = json.loads(store.get(_KEY))
        if self._after is not None and told["began"] < self._after:
            return None  # of an earlier attempt
        return Location(told["tracking_uri"], told["run_id"], told["started_at"])

    def publish(self, location: Location) -> bool:
        """Tells the other nodes; returns False if torch is not loaded.

        Raises:
            Exception: of torch's, if the agent does not answer.
        """
        store = self._connected()
        if store is None:
            return False
        began = int(this_process()["began"] * _MILLISECONDS)
        store.set(_KEY, json.dumps({**location._asdict(), "began": began}))
        return True

    def _connected(self) -> Any:
        if self._store is None:
            distributed = sys.modules.get("torch.distributed")
            is_loaded = distributed is not None and not getattr(distributed.__spec__, "_initializing", False)
            connect = getattr(distributed, "TCPStore", None) if is_loaded else None
            host, port = self._address
            if connect is not None and host and port.isdecimal():
                self._store = connect(
                    host, int(port), is_master=False, timeout=_CONNECT, wait_for_workers=False
                )
        return self._store


class Announcement:
    """Tells the other nodes where the run is, if torchrun has a store for that.

    Args:
        environ: environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._store = TorchStore(environ) if TorchStore.is_promised(environ) else None

    def make(self, location: Location) -> None:
        """Makes it once torch is loaded; to be called again and again."""
        with contextlib.suppress(Exception):  # of torch's
            if self._store is not None and self._store.publish(location):
                self._store = None


@dataclass
class TaggedRuns:
    """The runs of the tracking server that are tagged with the id of the job.

    Args:
        key: what the run of the job is tagged with.
        tracking_uri: returns the tracking URI in use.
        after: milliseconds since 1970 before which the owner of the run had not started; None if any will do.
        environ: environment variables.
        open_search: opens the runs of a tracking server.
    """

    key: str
    tracking_uri: Callable[[], str]
    after: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    open_search: Callable[[str], Any] = open_runs
    _looks: int = 0
    _listed: tuple[str | None, list[str]] = (None, [])
    _listed_at: int = 0

    def find(self) -> Location | None:
        """Asks the server, with one request, or two if the experiment is not known."""
        uri = self.tracking_uri()
        runs = self.open_search(uri)
        try:
            chosen = experiment_of_environment()
            self._looks += 1
            if self._looks > _LOOKS_IN_ONE:  # the owner may have set another one
                chosen = ExperimentChoice(None, None)
            ids = [chosen.experiment_id] if chosen.experiment_id else self._experiments(runs, chosen.name)
            if not ids:
                return None
            wanted = f"attributes.status = 'RUNNING' AND tags.`{JOB_TAG}` LIKE '{self.key} %'"
            found: list[FoundRun] = runs.search(ids, wanted, _MOST_RUNS)
        finally:
            runs.close()
        good = [run for run in found if is_open(run.tags.get(JOB_TAG, ""), self.key, self.after)]
        return Location(uri, good[0].run_id, good[0].started_at) if good else None

    def _experiments(self, runs: Any, name: str | None) -> list[str]:
        """Returns the experiment of a name, or all, which are listed again now and then: one may be new."""
        known_name, ids = self._listed
        is_old = name is None and self._looks >= self._listed_at + _LOOKS_IN_LISTED
        if not ids or known_name != name or is_old:
            ids = runs.experiment_ids(name)
            self._listed, self._listed_at = (name, ids), self._looks
        return ids


class Rendezvous:
    """Looks for the run of a job until it is found, for at most ten minutes.

    Args:
        near: sources that are asked at every look.
        server: the source that is asked less and less often.
        may_ask: returns whether this process is the one of its node that asks the server.
        now: monotonic time of the first look.
        jitter: returns a factor around 1, so that a thousand nodes do not ask at once.
    """

    def __init__(
        self,
        near: list[Source],
        server: Source | None,
        may_ask: Callable[[], bool],
        now: float,
        jitter: Callable[[], float] = lambda: random.SystemRandom().uniform(0.75, 1.25),
    ) -> None:
        self.over: set[tuple[str, str]] = set()  #: runs that were found before, and have ended
        self._near = near
        self._server = server
        self._may_ask = may_ask
        self._jitter = jitter
        self._ends = now + GIVE_UP_SECONDS
        self._looks = 0
        self._ask_at = now + _FIRST_SECONDS * jitter()

    def is_over(self, now: float) -> bool:
        """Returns whether it is time to give up."""
        return now >= self._ends

    def look(self, now: float) -> Location | None:
        """Asks the sources that are due.

        Args:
            now: monotonic time.
        """
        for source in self._near:
            found = _answer(source)
            if found is not None and found[:2] not in self.over:
                return found
        if self._server is None or now < self._ask_at or not self._may_ask():
            return None
        self._looks = min(self._looks + 1, _MOST_LOOKS_COUNTED)
        pause = min(_FIRST_SECONDS * _LONGER_BY**self._looks, _LONGEST_SECONDS)
        self._ask_at = now + pause * self._jitter()
        found = _answer(self._server)
        return None if found is None or found[:2] in self.over else found

    def restart(self, over: Location, now: float) -> None:
        """Looks for the next run of the job, for ten minutes from now on.

        Args:
            over: the run that has ended.
            now: monotonic time.
        """
        self.over.add(over[:2])
        self._ends = now + GIVE_UP_SECONDS
        self._looks = 0
        self._ask_at = now + _FIRST_SECONDS * self._jitter()


def _answer(source: Source) -> Location | None:
    try:
        return source.find()
    except Exception:  # noqa: BLE001 - a server that is down, or a store of torch's: asked again later
        return None


def sources(
    job: Job, election: Election | None, environ: Mapping[str, str], tracking_uri: Callable[[], str]
) -> tuple[list[Source], TaggedRuns | None, NodeFile | None]:
    """Returns where to look for the run of a job: near ones, the server, and the file of this node.

    Args:
        job: the job.
        election: of the job on this node; None if files cannot be kept.
        environ: environment variables.
        tracking_uri: returns the tracking URI in use.
    """
    file = None if election is None else NodeFile(election)
    restarted = job.attempt > 0 or (file is not None and file.is_stale)
    began = int(this_process()["began"] * _MILLISECONDS)
    after = began - _TOLERANCE_MILLISECONDS if restarted else None
    near: list[Source] = [] if file is None else [file]
    if TorchStore.is_promised(environ):
        near.append(TorchStore(environ, after))
    server = (
        None if job.key is None or job.size is None else TaggedRuns(job.key, tracking_uri, after, environ)
    )
    return near, server, file
