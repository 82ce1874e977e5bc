"""Whether the database of a tracking server is usable; nothing in it is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.inspected_server import InspectedServer
from mlflow_sysmetrics.cli.server.storage_findings import existing
from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.server.database import DatabaseState, database_state, newest_revision
from mlflow_sysmetrics.server.store_uri import server_store

_SECONDS = 10.0
_URI = "MLFLOW_BACKEND_STORE_URI"
# SQLAlchemy's defaults; MLflow changes them only if its variables are set.
_POOL_SIZE, _MAX_OVERFLOW = 5, 10
# MLflow keeps one pool for runs and one for models; basic authentication adds one for users.
_STORES = 2


def findings(inspected: InspectedServer) -> Iterator[Finding]:
    """Yields driver, reachability, schema and connections of the database."""
    uri = inspected.backend_store_uri
    if not uri:
        text = "not set: MLflow uses a file in the directory it is started in"
        yield Finding("database", Mark.WRONG, text, f"export {_URI}=postgresql+psycopg2://USER@HOST/DATABASE")
        return
    try:
        store = server_store(uri)
    except (SettingsError, ServerStartError) as error:
        yield Finding("driver", Mark.WRONG, str(error), None, {"uri": redacted(uri)})
        return
    yield _driver(uri, store)
    path = _file_of(store)
    if path is not None and existing(path) != path.absolute():
        yield _missing_file(path)
        return
    try:
        state = database_state(store, _SECONDS)
    except Fault as fault:
        yield Finding("reachable", Mark.WRONG, fault.reason, remedy(fault, store))
        return
    yield Finding("reachable", Mark.GOOD, "grants access")
    yield _schema(state)
    yield _connections(inspected, state)


def _driver(uri: str, store: str) -> Finding:
    scheme, shown = store.partition("://")[0], redacted(store)
    more = {"uri": shown}
    if uri.partition("://")[0] == scheme:
        return Finding("driver", Mark.GOOD, f"{shown}: installed", None, more)
    text = (
        f"{shown}: installed, but the URI does not name the driver, so the choice depends on the version of "
        "SQLAlchemy"
    )
    return Finding("driver", Mark.NOTE, text, f"start {_URI} with {scheme}://", more)


def _file_of(store: str) -> Path | None:
    return Path(store.partition(":///")[2].partition("?")[0]) if store.startswith("sqlite") else None


def _missing_file(path: Path) -> Finding:
    there = existing(path.parent)
    if not there.is_dir() or not os.access(there, os.W_OK):
        text = f"{path} does not exist, and this user cannot create it in {there}"
        return Finding("reachable", Mark.WRONG, text, "choose another path, or make the directory writable")
    return Finding("reachable", Mark.NOTE, f"{path} does not exist yet: the server creates it")


def _schema(state: DatabaseState) -> Finding:
    newest = newest_revision()
    more = {"revision": state.revision, "newest": newest}
    upgrade = "make a backup, then: mlflow db upgrade URI"
    if state.is_empty:
        return Finding(
            "schema", Mark.NOTE, "no tables yet: the server creates them when it starts", None, more
        )
    if state.revision is None:
        text = "has tables but none of MLflow's migrations: another program's database"
        return Finding("schema", Mark.WRONG, text, "use a separate database for MLflow", more)
    if state.revision != newest:
        text = f"revision {state.revision}, but the installed MLflow needs {newest}: it would not start"
        return Finding("schema", Mark.WRONG, text, upgrade, more)
    return Finding("schema", Mark.GOOD, f"current ({newest})", None, more)


def _connections(inspected: InspectedServer, state: DatabaseState) -> Finding:
    pool = inspected.number("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", _POOL_SIZE)
    pool += inspected.number("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", _MAX_OVERFLOW)
    stores = _STORES + inspected.basic_auth
    needed = inspected.workers * stores * pool
    more = {"needed": needed, "most": state.most_connections}
    if state.most_connections is None:
        text = f"up to {needed}; this kind of database does not report its limit"
        return Finding("connections", Mark.PLAIN, text, None, more)
    text = (
        f"up to {needed} ({inspected.workers} workers x {stores} pools x {pool}) of {state.most_connections}"
    )
    if needed > state.most_connections:
        remedy = "fewer workers, a smaller MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW, or a larger max_connections"
        return Finding("connections", Mark.WRONG, f"{text}: under load, requests would fail", remedy, more)
    return Finding("connections", Mark.GOOD, text, None, more)
