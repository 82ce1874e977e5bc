"""Reads the runs of a tracking server for the commands, and ends dead ones (`kill`)."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.mlflow_api.anonymous_client import open_anonymous_client
from mlflow_sysmetrics.mlflow_api.clients import open_client
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted

REAPED = "sysmetrics.reaped"  #: the tag that says why a run was set to KILLED
_RUNNING = "RUNNING"
_PAGE = 1000  # runs per request; MLflow's default, and far below its limit of 50,000
_NAMES = 5  # of experiments in a message
_EXPERIMENTS = 100  # per request: it holds their ids, and hosted servers bound its size


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run, as the server has it.

    Attributes:
        run_id: the run.
        name: its display name.
        running: True if its status is RUNNING and it is not deleted.
        started_at: milliseconds since 1970.
        experiment_id: the experiment that it belongs to.
        hostname: host name of the machine that it started on; None if its tags do not have it.
        last_sign: milliseconds since 1970 of the newest point of any series; None without points. Points in
            the future, which a program may write, do not count.
        system: newest value of each ``system/`` series.
    """

    run_id: str
    name: str
    running: bool
    started_at: int
    experiment_id: str
    hostname: str | None
    last_sign: int | None
    system: Mapping[str, float]


class TrackingServer:
    """One tracking server. Every method raises `Fault` if the server does not answer.

    Args:
        uri: its tracking URI, with the credentials that it needs.
        trusted: whether it may see the credentials of the environment.

    Attributes:
        uri: its tracking URI.
        client: MLflow's client of it.

    Raises:
        Fault: no client can be created for this URI, or it is a file that does not exist.
    """

    def __init__(self, uri: str, *, trusted: bool = True) -> None:
        self.uri = uri
        check_store(uri)
        self.client = self.ask(open_client if trusted else open_anonymous_client, uri)

    @property
    def name(self) -> str:
        """The URI without secrets."""
        return redacted(self.uri)

    def run(self, run_id: str) -> TrackedRun | None:
        """Returns a run; None if the server does not have it."""
        try:
            return _read(self.ask(self.client.get_run, run_id))
        except Fault as fault:
            if fault.cause is Cause.MISSING:
                return None
            raise

    def sampled_runs(self, experiments: Sequence[str]) -> Iterator[TrackedRun]:
        """Yields the runs with status RUNNING that have our tags.

        Not by ``sys.metrics``: points that a dead process has left on disk come without that tag.

        Args:
            experiments: names of the experiments to search; empty for all.

        Raises:
            LookupError: an experiment does not exist.
        """
        ids = self.experiment_ids(experiments)
        wanted = f"attributes.status = '{_RUNNING}' and tags.`sys.platform` LIKE '%'"
        for start in range(0, len(ids), _EXPERIMENTS):
            some_ids = ids[start : start + _EXPERIMENTS]
            for run in self.pages(
                self.client.search_runs, experiment_ids=some_ids, filter_string=wanted, max_results=_PAGE
            ):
                yield _read(run)

    def kill(self, run_id: str, end_time: int, reason: str) -> None:
        """Sets a run to KILLED and records why in the tag `REAPED`.

        Args:
            run_id: the run.
            end_time: milliseconds since 1970 of its last sign of life.
            reason: why it ended, as far as is known.
        """
        # The tag first: if the second request fails, the run is still RUNNING and is found again.
        self.ask(self.client.set_tag, run_id, REAPED, reason)
        self.ask(self.client.set_terminated, run_id, status="KILLED", end_time=end_time)

    def experiment_ids(self, names: Sequence[str]) -> list[str]:
        """Returns the ids of experiments.

        Args:
            names: their names; empty for all.

        Raises:
            LookupError: an experiment does not exist.
        """
        known = {one.name: one.experiment_id for one in self.pages(self.client.search_experiments)}
        missing = [name for name in names if name not in known]
        if missing:
            raise LookupError(
                f"{self.name} has no experiment {missing[0]!r}; {_among(missing[0], sorted(known))}"
            )
        return [known[name] for name in dict.fromkeys(names or known)]

    def pages(self, search: Any, **wanted: object) -> Iterator[Any]:
        """Yields what all pages of a search have.

        Args:
            search: a method of the client with the argument ``page_token``.
            **wanted: its other arguments.
        """
        token = None
        while True:
            page = self.ask(search, **wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def ask(self, method: Any, *arguments: object, **named: object) -> Any:
        """Returns what a method of the client returns."""
        try:
            # MLflow prints the addresses of runs ("View run ..."), which would end up in our output.
            with contextlib.redirect_stdout(io.StringIO()):
                return method(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - MLflow, its database, the network or a plugin may raise anything
            fault = fault_of_error(error, self.uri)
        raise fault


def tracking_uri_in_force() -> str | None:
    """Returns the tracking URI of the environment; None if none is set.

    A command should neither create nor search MLflow's default, a store in the working directory.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or None  # nothing else can have set it in a command


def _among(wanted: str, known: Sequence[str]) -> str:
    """Returns which names there are, the most similar ones first if there are many."""
    if len(known) <= _NAMES:
        return f"its experiments are {', '.join(map(repr, known)) or 'none'}"
    near = get_close_matches(wanted, known, n=_NAMES)
    shown = ", ".join(map(repr, near or known[:_NAMES]))
    return f"it has {len(known):,} others, such as {shown}"


def _read(run: Any) -> TrackedRun:
    # In MLflow 2.8 only the protocol buffer has the time of a metric.
    metrics = run.data.to_proto().metrics
    now = time.time_ns() // 1_000_000
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.data.tags.get("mlflow.runName", ""),
        running=run.info.status == _RUNNING and run.info.lifecycle_stage == "active",
        started_at=int(run.info.start_time),
        experiment_id=run.info.experiment_id,
        hostname=run.data.tags.get("sys.hostname"),
        last_sign=max((one.timestamp for one in metrics if one.timestamp <= now), default=None),
        system={metric.key: metric.value for metric in metrics if metric.key.startswith("system/")},
    )
