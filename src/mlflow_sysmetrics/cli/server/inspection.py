"""What `server doctor` inspects of a tracking server, and what it finds: access, storage, database."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.server.allowed_hosts import DEFAULT, is_allowed
from mlflow_sysmetrics.server.config import SHORTEST_PASSWORD
from mlflow_sysmetrics.server.database import DatabaseState, database_state, newest_revision
from mlflow_sysmetrics.server.store_uri import server_store

DEFAULT_WORKERS = 4  #: MLflow's default


@dataclass(frozen=True, kw_only=True)
class InspectedServer:
    """What is known about a server before it runs.

    Attributes:
        backend_store_uri: URI of its database; None if unknown.
        artifacts_destination: directory or URI; None if unknown.
        workers: number of worker processes.
        allowed_hosts: patterns of host names it answers to; empty for MLflow's default.
        public_names: host names its users call, each with a port unless that is 80 or 443.
        basic_auth: whether it asks for users and passwords.
        environ: its environment.
    """

    backend_store_uri: str | None = field(default=None, repr=False)
    artifacts_destination: str | None = None
    workers: int = DEFAULT_WORKERS
    allowed_hosts: tuple[str, ...] = ()
    public_names: tuple[str, ...] = ()
    basic_auth: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def number(self, name: str, default: int) -> int:
        """Returns the value of an integer variable; the default if it is unset or not an integer."""
        try:
            return int(self.environ.get(name) or default)
        except ValueError:
            return default


_HOSTS, _ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_PASSWORD, _SECRET = "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"
_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
_SHIPPED = "password1234"  # the default before MLflow 3.14, and public
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


def access_findings(inspected: InspectedServer) -> Iterator[Finding]:
    """Yields whether each public name is allowed, and whether authentication has what it needs."""
    if not inspected.public_names:
        text = "not given: cannot check that the host names users call are allowed"
        yield Finding("names", Mark.NOTE, text, "--public-name mlflow:5000 --public-name mlflow.example.org")
    for name in inspected.public_names:
        yield _host(inspected, name)
        if name.partition(":")[0] not in _LOCAL:
            yield _origin(inspected, name)
    yield from _authentication(inspected)


def _host(inspected: InspectedServer, name: str) -> Finding:
    title = f"called {name}"
    patterns = inspected.allowed_hosts or DEFAULT
    if is_allowed(name, patterns):
        return Finding(title, Mark.GOOD, "allowed")
    where = (
        f"not in {_HOSTS}"
        if inspected.allowed_hosts
        else "not among MLflow's defaults, which are local addresses only"
    )
    text = f"{where}: every call gets 403, while /health answers"
    added = ",".join((*(inspected.allowed_hosts or ("localhost", "localhost:*")), name))
    return Finding(title, Mark.WRONG, text, f"export {_HOSTS}={added}")


def _origin(inspected: InspectedServer, name: str) -> Finding:
    """Returns whether the user interface may make changes under a name: its pages send their origin."""
    title = f"pages of {name}"
    allowed = [one.strip() for one in inspected.environ.get(_ORIGINS, "").split(",") if one.strip()]
    if any(fnmatch(f"{scheme}://{name}", one) for one in allowed for scheme in ("http", "https")):
        return Finding(title, Mark.GOOD, "may make changes")
    text = "the user interface is read-only there: the server refuses changes from this origin"
    return Finding(title, Mark.NOTE, text, f"export {_ORIGINS}=https://{name}")


def _authentication(inspected: InspectedServer) -> Iterator[Finding]:
    if not inspected.basic_auth:
        text = "anyone who reaches the server may read, write and delete"
        yield Finding(
            "users",
            Mark.NOTE,
            text,
            "mlflow server --app-name basic-auth, then rerun with --basic-auth",
        )
        return
    if find_spec("flask_wtf") is None:
        yield Finding("users", Mark.WRONG, "Flask-WTF is not installed", "pip install Flask-WTF")
    if inspected.environ.get(_SECRET):
        yield Finding("secret key", Mark.GOOD, f"set in {_SECRET}")
    else:
        command = f"export {_SECRET}=$(openssl rand -hex 32)"
        yield Finding("secret key", Mark.WRONG, f"{_SECRET} is not set: the server will not start", command)
    yield _password(inspected)


def _password(inspected: InspectedServer) -> Finding:
    title = "administrator"
    password, source = inspected.environ.get(_PASSWORD), _PASSWORD
    path = inspected.environ.get(_CONFIG)
    if password is None and path:
        source = path
        try:
            file = ConfigParser()
            with Path(path).open(encoding="utf-8") as lines:
                file.read_file(lines)
            password = file["mlflow"].get("admin_password")
        except (OSError, Error, KeyError, UnicodeDecodeError) as error:
            return Finding(title, Mark.WRONG, f"{_CONFIG} cannot be read: {type(error).__name__}: {path}")
    if not password:
        text = f"no password in {_PASSWORD}: the server will not start before it has an administrator"
        return Finding(title, Mark.WRONG, text, f"export {_PASSWORD}=...")
    if password == _SHIPPED or len(password) < SHORTEST_PASSWORD:
        text = f"the password in {source} is public, or shorter than {SHORTEST_PASSWORD} characters"
        return Finding(title, Mark.WRONG, text, "choose another before the server creates the administrator")
    return Finding(title, Mark.GOOD, f"has a password, from {source}")


_GIGABYTE = 10**9
# One node at MLflow's default interval writes 100 MB of metrics a day.
_TOO_LITTLE_ROOM, _LITTLE_ROOM = 1, 10
_ARTIFACTS_URI = "MLFLOW_ARTIFACTS_DESTINATION"
_DEFAULT_PLACE = "./mlartifacts"
_PACKAGES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}


def storage_findings(inspected: InspectedServer) -> Iterator[Finding]:
    """Yields where artifacts go, whether that is writable, and how much room is left."""
    destination = inspected.artifacts_destination
    if not destination:
        text = f"not set: {_DEFAULT_PLACE} in the directory the server is started in, which a container loses"
        yield Finding("artifacts", Mark.WRONG, text, f"export {_ARTIFACTS_URI}=/a/mounted/volume")
    elif "://" in destination and not destination.startswith("file:"):
        yield _object_store(destination)
    else:
        directory = Path(destination.removeprefix("file://"))
        yield _directory(directory)
        yield _room("room for artifacts", directory)
    store = inspected.backend_store_uri or ""
    if store.startswith("sqlite:///"):
        yield _room("room for the database", Path(store.removeprefix("sqlite:///").partition("?")[0]).parent)


def _object_store(destination: str) -> Finding:
    scheme = destination.partition("://")[0]
    module = _PACKAGES.get(scheme)
    if module is not None and not _is_there(module):
        text = f"{destination}: needs the package {module}, which is not installed"
        return Finding("artifacts", Mark.WRONG, text, f"pip install {module.replace('.', '-')}")
    return Finding("artifacts", Mark.PLAIN, f"{destination}: an object store; writing to it is not tested")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is missing
        return False


def _directory(directory: Path) -> Finding:
    there = _existing(directory)
    try:
        with tempfile.TemporaryFile(dir=there):  # unnamed, so it disappears whatever happens
            pass
    except OSError as error:
        text = f"this user cannot write to {directory}: {error.strerror}"
        return Finding("artifacts", Mark.WRONG, text, f"chown it to user {_user()}, or use another one")
    if not directory.is_absolute():
        text = f"{directory} is writable, but relative to the directory the server is started in"
        return Finding("artifacts", Mark.NOTE, text, f"export {_ARTIFACTS_URI}={directory.absolute()}")
    created = "" if there == directory else ", and created with the first artifact"
    return Finding("artifacts", Mark.GOOD, f"{directory} is writable{created}")


def _room(name: str, directory: Path) -> Finding:
    free = shutil.disk_usage(_existing(directory)).free
    text = f"{free / _GIGABYTE:,.1f} GB free"
    more = {"free_bytes": free}
    if free < _TOO_LITTLE_ROOM * _GIGABYTE:
        return Finding(name, Mark.WRONG, text, "free some space, or use a larger volume", more)
    if free < _LITTLE_ROOM * _GIGABYTE:
        return Finding(name, Mark.NOTE, text, "mlflow gc frees the space of deleted runs", more)
    return Finding(name, Mark.GOOD, text, None, more)


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest directory above it that exists."""
    absolute = path.absolute()
    # Unlike Path.exists, os.path.exists never raises, not even for a name that is too long.
    return next(one for one in (absolute, *absolute.parents) if os.path.exists(one))


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "of the server"


_DATABASE_SECONDS = 10.0
_DATABASE_URI = "MLFLOW_BACKEND_STORE_URI"
# SQLAlchemy's defaults; MLflow changes them only if its variables are set.
_POOL_SIZE, _MAX_OVERFLOW = 5, 10
# MLflow keeps one pool for runs and one for models; basic authentication adds one for users.
_STORES = 2


def database_findings(inspected: InspectedServer) -> Iterator[Finding]:
    """Yields driver, reachability, schema and connections of the database."""
    uri = inspected.backend_store_uri
    if not uri:
        text = "not set: MLflow uses a file in the directory it is started in"
        yield Finding(
            "database", Mark.WRONG, text, f"export {_DATABASE_URI}=postgresql+psycopg2://USER@HOST/DATABASE"
        )
        return
    try:
        store = server_store(uri)
    except (SettingsError, ServerStartError) as error:
        yield Finding("driver", Mark.WRONG, str(error), None, {"uri": redacted(uri)})
        return
    yield _driver(uri, store)
    path = _file_of(store)
    if path is not None and _existing(path) != path.absolute():
        yield _missing_file(path)
        return
    try:
        state = database_state(store, _DATABASE_SECONDS)
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
    return Finding("driver", Mark.NOTE, text, f"start {_DATABASE_URI} with {scheme}://", more)


def _file_of(store: str) -> Path | None:
    return Path(store.partition(":///")[2].partition("?")[0]) if store.startswith("sqlite") else None


def _missing_file(path: Path) -> Finding:
    there = _existing(path.parent)
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
