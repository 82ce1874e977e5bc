"""The steps 1 to 3: the server, the experiment, the run."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.client_store import ClientStore
from mlflow_sysmetrics.mlflow_api.clients import load, speaks_rest
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.stores import ACTIVE, RUNNING, Store, StoredExperiment, StoredRun
from mlflow_sysmetrics.preflight.attempts import Asked
from mlflow_sysmetrics.preflight.run_check import check_run
from mlflow_sysmetrics.preflight.tries import Tries

PREFLIGHT_TAG = "sysmetrics.preflight_id"  #: by which a run is found whose making was not answered
_OPENED_BY_MLFLOW = frozenset({"", "file", "sqlite", "postgresql", "mysql", "mssql"})
_TABLES_SECONDS = 120  # making or migrating all tables of a database takes 5 s here, minutes on a large one
_VERSION_SECONDS = 3  # as MLflow itself gives it
_log = logging.getLogger("mlflow_sysmetrics")


class Steps:
    """Takes the steps 1 to 4, and knows what has been made so far.

    Args:
        asked: what the caller wants.
        uri: the tracking URI.

    Attributes:
        store: once it is known how to speak to it.
        experiment: once it is found or made.
        run_id: once the run exists.
        run: as it was read back at the end.
        resumed: the run as it was found, if it is resumed.
        server_version: of MLflow at the other end, once it has told.
    """

    def __init__(self, asked: Asked, uri: str) -> None:
        self.store: Store | None = None
        self.experiment: StoredExperiment | None = None
        self.run_id: str | None = None
        self.run: StoredRun | None = None
        self.resumed: StoredRun | None = None
        self.server_version: str | None = None
        self._asked = asked
        self._uri = uri
        self._preflight_id = uuid.uuid4().hex
        self._may_exist = False  # a run of ours that no answer told of

    def status_code(self) -> int | None:
        """Returns the HTTP status of the last answer."""
        return None if self.store is None else self.store.status_code

    def take(self, tries: Tries, on_step: Callable[[], None]) -> None:
        """Takes them all.

        Args:
            tries: how long to try; its step is set.
            on_step: is called when a step begins.

        Raises:
            Fault: one could not be taken; `tries.step` says which.
        """
        tries.step = 1
        on_step()
        store = self._reach(tries)
        tries.step = 2
        on_step()
        self.experiment = self._find_experiment(store, tries)
        tries.step = 3
        on_step()
        self.run_id = self._resume(store, tries) if self.resumed else self._start(store, tries)
        tries.step = 4
        on_step()
        tags = self._asked.tags if self.resumed else {}  # a new run has them
        self.run = check_run(store, tries, self.run_id, self._asked.params, tags)
        if self._asked.check_artifacts:
            from mlflow_sysmetrics.preflight.artifact_check import check_artifacts

            run_id = self.run_id
            tries.ask(lambda seconds: check_artifacts(self._uri, run_id, seconds))

    def find_lost_run(self, seconds: float) -> None:
        """Looks for a run that may have been made though no answer told so.

        Raises:
            Fault: it cannot be told.
        """
        if self.run_id is None and self._may_exist and self.experiment and self.store:
            wanted = (self.experiment.experiment_id, PREFLIGHT_TAG, self._preflight_id)
            self.run_id = self.store.run_tagged(*wanted, seconds)

    def _reach(self, tries: Tries) -> Store:
        uri = self._uri
        load(uri)
        # What a database or a directory is would be told by opening it only.
        rest = fluent_state.scheme_of(uri) not in _OPENED_BY_MLFLOW and speaks_rest(uri)
        self.store = store = RestStore(uri) if rest else ClientStore(uri)
        tries.ask(store.reach)
        if not rest:
            tries.ask(store.open, at_least=_TABLES_SECONDS)
        self.server_version = store.version(min(_VERSION_SECONDS, tries.remaining))
        _compare_versions(fluent_state.version(), self.server_version)
        return store

    def _find_experiment(self, store: Store, tries: Tries) -> StoredExperiment:
        name, experiment_id = self._asked.experiment_name, None
        if self._asked.run_id is not None:
            run_id = self._asked.run_id
            self.resumed = tries.ask(lambda seconds: store.run(run_id, seconds))
            experiment_id = self.resumed.experiment_id
        elif name is None:
            name, experiment_id = fluent_state.experiment_choice(self._uri)
        if experiment_id is not None:
            known_id = experiment_id
            found = tries.ask(lambda seconds: store.experiment(known_id, seconds))
        else:
            found = _experiment_named(name or "", store, tries)
        if self.resumed is not None and name not in {None, found.name}:
            raise Fault(
                f"run {self._asked.run_id} is in the experiment {found.name!r}, not in {name!r}",
                Cause.MISSING,
                remedy="Leave out one of the two, or name those that belong together.",
            )
        if found.lifecycle_stage != ACTIVE:
            raise Fault(
                f"the experiment {found.name!r} (id {found.experiment_id}) is deleted",
                Cause.MISSING,
                remedy=f"Restore it (mlflow experiments restore -x {found.experiment_id}), or take another.",
            )
        return found

    def _start(self, store: Store, tries: Tries) -> str:
        """Starts a run, once: after an answer that was lost, it is looked for before it is made again."""
        experiment_id = self.experiment.experiment_id if self.experiment else "0"
        name = self._asked.run_name
        tags = fluent_state.run_tags({**self._asked.tags, PREFLIGHT_TAG: self._preflight_id}, name)

        def find_or_start(seconds: float) -> str:
            began = tries.elapsed
            if self._may_exist:
                found = store.run_tagged(experiment_id, PREFLIGHT_TAG, self._preflight_id, seconds)
                if found is not None:
                    return found
            self._may_exist = True
            return store.create_run(experiment_id, name, tags, seconds - (tries.elapsed - began))

        return tries.ask(find_or_start)

    def _resume(self, store: Store, tries: Tries) -> str:
        found = self.resumed
        if found is None:
            raise AssertionError("the run was read in step 2")
        if found.lifecycle_stage != ACTIVE:
            raise Fault(
                f"run {found.run_id} is deleted",
                Cause.MISSING,
                remedy=f"Restore it (mlflow runs restore --run-id {found.run_id}), or start a new one.",
            )
        self.run_id = found.run_id
        tries.ask(lambda seconds: store.set_status(found.run_id, RUNNING, found.end_time, seconds))
        return found.run_id


def _experiment_named(name: str, store: Store, tries: Tries) -> StoredExperiment:
    """Finds or makes an experiment; another process may make it at the same moment."""
    found = tries.ask(lambda seconds: store.experiment_named(name, seconds))
    if found is not None:
        return found
    try:
        tries.ask(lambda seconds: store.create_experiment(name, seconds))
    except Fault as fault:
        if fault.cause is not Cause.EXISTS:
            raise
    found = tries.ask(lambda seconds: store.experiment_named(name, seconds))
    if found is None:
        raise Fault(f"the experiment {name!r} was made, and is not found", Cause.NOT_READ_BACK)
    return found


def _compare_versions(client: str, server: str | None) -> None:
    if server and server.partition(".")[0] != client.partition(".")[0]:
        _log.warning(
            "the tracking server runs MLflow %s, this program %s: what one of them has, the other may lack",
            server,
            client,
        )
