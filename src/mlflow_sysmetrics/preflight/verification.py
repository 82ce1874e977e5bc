"""Whether a tracking server stores a run and returns it, in four steps that leave nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isclose

from mlflow_sysmetrics.mlflow_api.client_store import ClientStore
from mlflow_sysmetrics.mlflow_api.clients import is_remote, load, speaks_rest
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.stores import ACTIVE, FINISHED, Store
from mlflow_sysmetrics.preflight.cleanup import (
    CHECK_TAG,
    OWN_NAME,
    ClientDeleter,
    CreatedObjects,
    Deleter,
    RestDeleter,
)
from mlflow_sysmetrics.preflight.remedies import credentials_sent, remedy
from mlflow_sysmetrics.preflight.uri_check import problem_with

STEPS = ("Server", "Experiment", "Run and metric", "Metric read back")
_METRIC, _VALUE = "check/ok", 1.0
_TABLES_SECONDS = 120.0  # creating or migrating all tables of a database takes 5 s, minutes on a large one
_VERSION_SECONDS = 3.0  # the timeout of MLflow itself
_DELETION_SECONDS = 10.0  # half a minute per request is too long for a server that has just failed


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was taken.

    Attributes:
        number: from 1.
        name: what was tried.
        seconds: how long it took.
        text: what came back, in one line without secrets.
        passed: whether it succeeded.
        status_code: HTTP status, if a response caused the failure.
        remedy: what to do about a failure.
    """

    number: int
    name: str
    seconds: float
    text: str
    passed: bool = True
    status_code: int | None = None
    remedy: str | None = None


class Verification:
    """Creates a run on a tracking store, writes to it, reads it back, and deletes it.

    Args:
        tracking_uri: the store.
        experiment: name of the experiment, which is created if there is none; by default a new one.
        timeout: timeout of each request, in seconds. Nothing is retried.
        connect: returns the store of a tracking URI, and a deleter for the same store.
        sleep: waits.

    Attributes:
        created: what has been created so far.
        server_version: version of MLflow on the server, once it has reported one.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str | None = None,
        *,
        timeout: float = 30.0,
        connect: Callable[[str], tuple[Store, Deleter]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.created = CreatedObjects(experiment)
        self.server_version: str | None = None
        self._uri = tracking_uri
        self._timeout = timeout
        self._connect = connect or _connect
        self._sleep = sleep
        self._ends: tuple[Store, Deleter] | None = None

    def steps(self) -> Iterator[Step]:
        """Takes the steps one by one and yields each; ends after one that fails."""
        if self._connect is _connect:
            with suppress(ImportError):  # the first step reports what is missing
                load(self._uri)  # not part of the server's time
        acts = (self._reach, self._have_experiment, self._make_run, self._read_back)
        for number, (name, act) in enumerate(zip(STEPS, acts, strict=True), start=1):
            began = time.monotonic()
            try:
                text = act()
            except Fault as fault:
                failed = Step(number, name, time.monotonic() - began, fault.reason, passed=False)
                yield replace(failed, status_code=fault.status_code, remedy=self._remedy(fault))
                return
            yield Step(number, name, time.monotonic() - began, text)

    def clean_up(self) -> list[str]:
        """Deletes what was created, including by a request whose response never came.

        Returns:
            What could not be deleted and why, one clause each.
        """
        if self._ends is None:
            return []
        return self.created.delete(*self._ends, min(self._timeout, _DELETION_SECONDS), self._sleep)

    def _reach(self) -> str:
        problem = problem_with(self._uri)
        if problem is not None:
            raise _BadUri(problem)
        self._ends = self._connect(self._uri)
        self._store.reach(self._timeout)
        self._store.open(max(self._timeout, _TABLES_SECONDS))
        self.server_version = self._store.version(min(self._timeout, _VERSION_SECONDS))
        return f"responds; MLflow {self.server_version}" if self.server_version else "responds"

    def _have_experiment(self) -> str:
        name = self.created.experiment
        experiment = self._store.experiment_named(name, self._timeout)
        if experiment is None:
            self.created.experiment_requested = True
            try:
                self._store.create_experiment(name, self._timeout)
                self.created.experiment_created = True
            except Fault as fault:
                if fault.cause is not Cause.EXISTS:  # another process created it first
                    raise
            experiment = self._store.experiment_named(name, self._timeout)
        if experiment is None:
            raise Fault(f"{name} was created, but is not found", Cause.NOT_READ_BACK)
        if experiment.lifecycle_stage != ACTIVE:
            raise _Deleted(name, experiment.experiment_id)
        self.created.experiment_id = experiment.experiment_id
        return f"{name} {'was created' if self.created.experiment_created else 'exists'}"

    def _make_run(self) -> str:
        tags = {CHECK_TAG: self.created.token, "mlflow.source.name": "mlflow-sysmetrics check"}
        self.created.run_requested = True
        run_id = self._store.create_run(self.created.experiment_id or "", OWN_NAME, tags, self._timeout)
        self.created.run_id = run_id
        self._store.log(run_id, (_METRIC, _VALUE), {}, {}, self._timeout)
        self._store.set_status(run_id, FINISHED, time.time_ns() // 1_000_000, self._timeout)
        return f"run {run_id} was created, written to and ended"

    def _read_back(self) -> str:
        run = self._store.run(self.created.run_id or "", self._timeout)
        value = run.metrics.get(_METRIC)
        if value is None or not isclose(value, _VALUE):
            raise Fault(f"{_METRIC} was written as {_VALUE:g}, but reads {value}", Cause.NOT_READ_BACK)
        if run.status != FINISHED:
            raise Fault(f"the run was ended, but is still {run.status}", Cause.NOT_READ_BACK)
        return f"{_METRIC} = {value:g}, as it was written"

    def _remedy(self, fault: Fault) -> str | None:
        if isinstance(fault, _BadUri):
            return None  # its reason already says what to write
        if isinstance(fault, _Deleted):
            return f"mlflow experiments restore --experiment-id {fault.experiment_id}, or use another name"
        return remedy(fault, self._uri, credentials_sent(self._uri))

    @property
    def _store(self) -> Store:
        if self._ends is None:
            raise AssertionError("the first step connects")
        return self._ends[0]


def _connect(tracking_uri: str) -> tuple[Store, Deleter]:
    if is_remote(tracking_uri) and speaks_rest(tracking_uri):
        return RestStore(tracking_uri), RestDeleter(tracking_uri)
    return ClientStore(tracking_uri), ClientDeleter(tracking_uri)


class _BadUri(Fault):
    """The tracking URI is invalid; no server was contacted."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, Cause.BAD_URI)


class _Deleted(Fault):
    """The experiment is deleted and still holds its name."""

    def __init__(self, name: str, experiment_id: str) -> None:
        super().__init__(f"{name} is deleted but still holds its name", Cause.REFUSED)
        self.experiment_id = experiment_id
