"""Whether a tracking server grants access to its users, and only to them."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser, Error
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.inspected_server import InspectedServer
from mlflow_sysmetrics.server.allowed_hosts import DEFAULT, is_allowed

_HOSTS, _ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_PASSWORD, _SECRET = "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"
_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
_SHORTEST_PASSWORD = 12  # MLflow 3 requires at least this
_SHIPPED = "password1234"  # the default before MLflow 3.14, and public
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


def findings(inspected: InspectedServer) -> Iterator[Finding]:
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
    if password == _SHIPPED or len(password) < _SHORTEST_PASSWORD:
        text = f"the password in {source} is public, or shorter than {_SHORTEST_PASSWORD} characters"
        return Finding(title, Mark.WRONG, text, "choose another before the server creates the administrator")
    return Finding(title, Mark.GOOD, f"has a password, from {source}")
