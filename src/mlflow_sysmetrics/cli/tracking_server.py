"""The section of `doctor` about the tracking server: whether it answers, its version, and access to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.tracked_runs import tracking_uri_in_force
from mlflow_sysmetrics.daemon.journal.store_files import store_path
from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.client_store import ClientStore
from mlflow_sysmetrics.mlflow_api.clients import is_remote, load
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.stores import Store
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import credentials_sent, remedy
from mlflow_sysmetrics.preflight.uri_check import problem_with

# A busy server answers within this time; a server that is still starting counts as down.
_SECONDS = 5.0
_URI = "MLFLOW_TRACKING_URI"
# Any answer from MLflow to this request proves access: it needs credentials, allowed host and database.
_NO_SUCH_EXPERIMENT = "mlflow-sysmetrics-doctor"


def findings(environ: Mapping[str, str], open_store: Callable[[str], Store] = RestStore) -> list[Finding]:
    """Returns what is found at the current tracking URI.

    Args:
        environ: the environment, which shows where the tracking URI came from.
        open_store: opens the store behind the tracking URI of a server.
    """
    try:
        import_module("mlflow")
    except Exception:  # of any kind; `installed` reports the failed import with its reason
        return [Finding("tracking URI", Mark.ABSENT, "not inspected: MLflow cannot be imported")]
    return list(_findings(environ, open_store))


def _findings(environ: Mapping[str, str], open_store: Callable[[str], Store]) -> Iterator[Finding]:
    uri = tracking_uri_in_force()
    if uri is None:
        text = "not set: a program that does not set one itself writes to a local file"
        yield Finding("tracking URI", Mark.NOTE, text, f"export {_URI}=https://host:port", {"uri": None})
        return
    shown = redacted(uri)
    origin = "environment" if environ.get(_URI) else "mlflow"
    more = {"uri": shown, "origin": origin}
    problem = problem_with(uri)
    if problem is not None:
        yield Finding("tracking URI", Mark.WRONG, problem, None, more)
        return
    source = _URI if origin == "environment" else "found by MLflow"
    yield Finding("tracking URI", Mark.GOOD, f"{shown} ({source})", None, more)
    if is_remote(uri):
        yield from _of_server(uri, open_store(uri))
    else:
        yield _of_file_or_database(uri)


def _of_server(uri: str, store: Store) -> Iterator[Finding]:
    """Yields whether a server is up, its version, and whether it grants access; /health proves neither."""
    try:
        store.reach(_SECONDS)
    except Fault as fault:
        yield _wrong("reachable", fault, uri)
        return
    yield Finding("reachable", Mark.GOOD, "answers")
    here, there = fluent_state.version(), store.version(_SECONDS)
    if there is not None:
        yield _versions(here, there)
    sent = credentials_sent(uri)
    try:
        store.experiment_named(_NO_SUCH_EXPERIMENT, _SECONDS)
    except Fault as fault:
        yield _wrong("access", fault, uri)
        return
    yield Finding("access", Mark.GOOD, f"granted, with {sent}", None, {"mechanism": sent})


def _versions(here: str, there: str) -> Finding:
    more = {"server_version": there, "client_version": here}
    if here.partition(".")[0] == there.partition(".")[0]:
        return Finding("version", Mark.GOOD, f"MLflow {there}", None, more)
    text = f"MLflow {there} on the server, {here} here: one may lack features of the other"
    return Finding("version", Mark.NOTE, text, "use the same major version on both sides", more)


def _of_file_or_database(uri: str) -> Finding:
    """Returns whether a store can be opened; a store that does not exist is not created."""
    path = store_path(uri)
    if path is not None and not path.exists():
        return Finding("reachable", Mark.NOTE, "does not exist yet: MLflow creates it with the first run")
    if path is not None and not os.access(path, os.R_OK | os.W_OK):
        text = "this user cannot read and write it"
        return Finding("reachable", Mark.WRONG, text, "change its permissions")
    with suppress(ImportError):  # a missing package is reported by the call that needs it
        load(uri)  # importing takes seconds on a busy machine; do not count them against the database
    try:
        ClientStore(uri).reach(_SECONDS)
    except Fault as fault:
        return _wrong("reachable", fault, uri)
    return Finding("reachable", Mark.GOOD, "opens")


def _wrong(name: str, fault: Fault, uri: str) -> Finding:
    sent = credentials_sent(uri) if is_remote(uri) else "no credentials"
    more = {"status_code": fault.status_code, "mechanism": sent}
    # A server that answers with an error may be up in a minute, after this check.
    starting = fault.cause is Cause.DOWN and fault.status_code is not None
    text = f"{fault.reason}; it may be starting" if starting else fault.reason
    return Finding(name, Mark.WRONG, text, remedy(fault, uri, sent), more)
