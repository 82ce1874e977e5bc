"""What a tracking server says of its runs, and the one change that is made to them: `kill`."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.daemon.delivery.credential_scope import without_credentials
from mlflow_sysmetrics.daemon.journal.store_files import check_store
from mlflow_sysmetrics.errors import RunRefused, ServerUnreachable
from mlflow_sysmetrics.mlflow_api.classification import root_cause
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted, without_secrets

REAPED = "sysmetrics.reaped"  #: the tag that says why a run was set to KILLED
_RUNNING = "RUNNING"
_PAGE = 1000  # runs per request; MLflow's default, and far below its limit of 50,000
_EXPERIMENTS = 100  # per request: their ids travel in it, and hosted servers bound its size
_GONE = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What the server says of one run.

    Attributes:
        run_id: the run.
        name: what people call it.
        running: whether it says RUNNING and was not deleted.
        started_at: milliseconds since 1970.
        experiment_id: the experiment that it belongs to.
        hostname: of the machine that it began on, where its tags tell.
        last_sign: milliseconds since 1970 of the newest point of any series, leaving out those in the future,
            which a user's own may be; None where it has none.
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
    """One tracking server.

    Args:
        uri: its tracking URI, with the credentials that it needs.
        trusted: whether it may see the credentials of the environment.

    Raises:
        ServerUnreachable: there is no client for this URI, or it is a file that does not exist.
    """

    def __init__(self, uri: str, *, trusted: bool = True) -> None:
        self.uri = uri
        check_store(uri)
        from mlflow import MlflowClient

        self._client = self._ask(MlflowClient, uri)
        if not trusted:
            _withhold_credentials(self._client)

    @property
    def name(self) -> str:
        """The URI without secrets."""
        return redacted(self.uri)

    def run(self, run_id: str) -> TrackedRun | None:
        """Returns a run, or None where the server does not have it.

        Raises:
            ServerUnreachable: the server did not answer.
        """
        try:
            return _read(self._ask(self._client.get_run, run_id))
        except RunRefused:
            return None

    def sampled_runs(self, experiments: Sequence[str]) -> Iterator[TrackedRun]:
        """Yields the runs that say RUNNING and carry the tag ``sys.metrics=on``.

        Args:
            experiments: names of the experiments to look at; none for all.

        Raises:
            ServerUnreachable: the server did not answer.
            LookupError: there is no experiment of that name.
        """
        ids = self.experiment_ids(experiments)
        wanted = f"attributes.status = '{_RUNNING}' and tags.`sys.metrics` = 'on'"
        for start in range(0, len(ids), _EXPERIMENTS):
            some = ids[start : start + _EXPERIMENTS]
            for run in self._pages(
                self._client.search_runs, experiment_ids=some, filter_string=wanted, max_results=_PAGE
            ):
                yield _read(run)

    def kill(self, run_id: str, end_time: int, reason: str) -> None:
        """Sets a run to KILLED, with the tag that says why.

        Args:
            run_id: the run.
            end_time: milliseconds since 1970 of its last sign of life.
            reason: what is known of its end.

        Raises:
            ServerUnreachable: the server did not answer.
            RunRefused: the run is gone.
        """
        # The tag first: a run that is not RUNNING any more would not be looked at again.
        self._ask(self._client.set_tag, run_id, REAPED, reason)
        self._ask(self._client.set_terminated, run_id, status="KILLED", end_time=end_time)

    def experiment_ids(self, names: Sequence[str]) -> list[str]:
        """Returns the ids of experiments.

        Args:
            names: their names; none for all.

        Raises:
            ServerUnreachable: the server did not answer.
            LookupError: there is no experiment of that name.
        """
        known = {one.name: one.experiment_id for one in self._pages(self._client.search_experiments)}
        missing = [name for name in names if name not in known]
        if missing:
            there = ", ".join(repr(name) for name in sorted(known)) or "none"
            raise LookupError(f"{self.name} has no experiment {missing[0]!r}; its experiments are {there}")
        return [known[name] for name in dict.fromkeys(names or known)]

    def _pages(self, search: Any, **wanted: object) -> Iterator[Any]:
        token = None
        while True:
            page = self._ask(search, **wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _ask(self, method: Any, *arguments: object, **named: object) -> Any:
        try:
            # MLflow prints addresses of runs ("View run ..."), between what programs are to read.
            with contextlib.redirect_stdout(io.StringIO()):
                return method(*arguments, **named)
        except Exception as error:
            # Stores raise MlflowException, and what their database, network or plugin raises.
            gone = getattr(error, "error_code", None) == _GONE
            reason = without_secrets(_reason(error), self.uri)
            raise (RunRefused if gone else ServerUnreachable)(reason) from error


def _withhold_credentials(client: Any) -> None:
    """Has a client speak to its server as nobody in particular; for good, since MLflow shares its stores."""
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    get_host_creds = getattr(store, "get_host_creds", None)
    if store is not None and get_host_creds is not None:
        store.get_host_creds = lambda: without_credentials(get_host_creds())


def tracking_uri_in_force() -> str | None:
    """Returns the tracking URI of the environment; None where none is set.

    MLflow's default, a store in the working directory, is nothing that a command should make or search.
    """
    from mlflow.tracking import get_tracking_uri, is_tracking_uri_set

    return str(get_tracking_uri()) if is_tracking_uri_set() else None


def _read(run: Any) -> TrackedRun:
    # Only the protocol buffer tells a metric's time in every MLflow from 2.8 on.
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


def _reason(error: BaseException) -> str:
    root = root_cause(error)
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return (str(root).strip().splitlines() or [type(root).__name__])[0]
