"""Whether a tracking server takes a run and gives it back, in four steps that leave no trace."""

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
    ClientRemoval,
    Removal,
    RestRemoval,
    Traces,
)
from mlflow_sysmetrics.preflight.mechanisms import mechanism
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.preflight.uri_check import problem_with

STEPS = ("Server", "Experiment", "Run and metric", "Metric read back")
_METRIC, _VALUE = "check/ok", 1.0
_TABLES_SECONDS = 120.0  # making or migrating all tables of a database takes 5 s, minutes on a large one
_VERSION_SECONDS = 3.0  # as MLflow itself gives it
_REMOVAL_SECONDS = 10.0  # nobody waits half a minute at a time for a server that has just failed


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was taken.

    Attributes:
        number: from 1.
        name: what was tried.
        seconds: how long it took.
        text: what came back, in a line without secrets.
        passed: whether it came out as it should.
        status_code: of HTTP, of an answer that was none.
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
    """Makes a run on a tracking store, writes to it, reads it back, and removes it.

    Args:
        tracking_uri: of the store.
        experiment: name of the experiment, which is made if there is none; by default a new one.
        timeout: longest wait in seconds for each answer. Everything is tried once.
        connect: returns what answers for the tracking URI, and what removes from the same store.
        sleep: waits.

    Attributes:
        traces: what has been made so far.
        server_version: of MLflow at the other end, once it has told.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str | None = None,
        *,
        timeout: float = 30.0,
        connect: Callable[[str], tuple[Store, Removal]] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.traces = Traces(experiment)
        self.server_version: str | None = None
        self._uri = tracking_uri
        self._timeout = timeout
        self._connect = connect or _connect
        self._sleep = sleep
        self._ends: tuple[Store, Removal] | None = None

    def steps(self) -> Iterator[Step]:
        """Takes the steps one by one and yields each; one that fails is the last."""
        if self._connect is _connect:
            with suppress(ImportError):  # the first step tells what is missing
                load(self._uri)  # not to be counted as the server's time
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
        """Removes what was made, also what a request made whose answer never came.

        Returns:
            What could not be removed and why, one clause each.
        """
        if self._ends is None:
            return []
        return self.traces.remove(*self._ends, min(self._timeout, _REMOVAL_SECONDS), self._sleep)

    def _reach(self) -> str:
        problem = problem_with(self._uri)
        if problem is not None:
            raise _BadUri(problem)
        self._ends = self._connect(self._uri)
        self._store.reach(self._timeout)
        self._store.open(max(self._timeout, _TABLES_SECONDS))
        self.server_version = self._store.version(min(self._timeout, _VERSION_SECONDS))
        return f"answers; MLflow {self.server_version}" if self.server_version else "answers"

    def _have_experiment(self) -> str:
        name = self.traces.experiment
        found = self._store.experiment_named(name, self._timeout)
        if found is None:
            self.traces.experiment_begun = True
            try:
                self._store.create_experiment(name, self._timeout)
                self.traces.experiment_made = True
            except Fault as fault:
                if fault.cause is not Cause.EXISTS:  # somebody else was faster, which is as good
                    raise
            found = self._store.experiment_named(name, self._timeout)
        if found is None:
            raise Fault(f"{name} was made, and cannot be found", Cause.NOT_READ_BACK)
        if found.lifecycle_stage != ACTIVE:
            raise _Deleted(name, found.experiment_id)
        self.traces.experiment_id = found.experiment_id
        return f"{name} {'was made' if self.traces.experiment_made else 'is there'}"

    def _make_run(self) -> str:
        tags = {CHECK_TAG: self.traces.token, "mlflow.source.name": "mlflow-sysmetrics check"}
        self.traces.run_begun = True
        run_id = self._store.create_run(self.traces.experiment_id or "", OWN_NAME, tags, self._timeout)
        self.traces.run_id = run_id
        self._store.log(run_id, (_METRIC, _VALUE), {}, {}, self._timeout)
        self._store.set_status(run_id, FINISHED, time.time_ns() // 1_000_000, self._timeout)
        return f"run {run_id} was made, written to and ended"

    def _read_back(self) -> str:
        run = self._store.run(self.traces.run_id or "", self._timeout)
        value = run.metrics.get(_METRIC)
        if value is None or not isclose(value, _VALUE):
            raise Fault(f"{_METRIC} was written as {_VALUE:g} and reads {value}", Cause.NOT_READ_BACK)
        if run.status != FINISHED:
            raise Fault(f"the run was ended and still says {run.status}", Cause.NOT_READ_BACK)
        return f"{_METRIC} = {value:g}, as it was written"

    def _remedy(self, fault: Fault) -> str | None:
        if isinstance(fault, _BadUri):
            return None  # it says itself what to write
        if isinstance(fault, _Deleted):
            return f"mlflow experiments restore --experiment-id {fault.experiment_id}, or another name"
        return remedy(fault, self._uri, mechanism(self._uri))

    @property
    def _store(self) -> Store:
        if self._ends is None:
            raise AssertionError("the first step connects")
        return self._ends[0]


def _connect(tracking_uri: str) -> tuple[Store, Removal]:
    if is_remote(tracking_uri) and speaks_rest(tracking_uri):
        return RestStore(tracking_uri), RestRemoval(tracking_uri)
    return ClientStore(tracking_uri), ClientRemoval(tracking_uri)


class _BadUri(Fault):
    """The tracking URI can mean nothing, told before anybody was asked."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, Cause.BAD_URI)


class _Deleted(Fault):
    """The experiment is deleted, and holds its name."""

    def __init__(self, name: str, experiment_id: str) -> None:
        super().__init__(f"{name} is deleted, and still holds its name", Cause.REFUSED)
        self.experiment_id = experiment_id
