"""Whether the users of a tracking server are let in, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser, Error
from fnmatch import fnmatch
from importlib.util import find_spec

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.options import AskedServer
from mlflow_sysmetrics.server.allowed_hosts import DEFAULT, is_allowed

_HOSTS, _ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_PASSWORD, _SECRET = "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"
_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
_SHORTEST_PASSWORD = 12  # as MLflow 3 asks
_SHIPPED = "password1234"  # of MLflow before 3.14, and known to everybody
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


def findings(asked: AskedServer) -> Iterator[Finding]:
    """Yields whether each public name is allowed, and whether authentication has what it needs."""
    if not asked.public_names:
        text = "not said by which name the server is called, so it is not looked whether that is allowed"
        yield Finding(
            "names", Mark.ABSENT, text, "--public-name mlflow:5000 --public-name mlflow.example.org"
        )
    for name in asked.public_names:
        yield _host(asked, name)
        if name.partition(":")[0] not in _LOCAL:
            yield _origin(asked, name)
    yield from _authentication(asked)


def _host(asked: AskedServer, name: str) -> Finding:
    title = f"called {name}"
    patterns = asked.allowed_hosts or DEFAULT
    if is_allowed(name, patterns):
        return Finding(title, Mark.GOOD, "allowed")
    where = (
        f"not in {_HOSTS}"
        if asked.allowed_hosts
        else "not among MLflow's defaults, which are local addresses"
    )
    text = f"{where}: every call gets 403 while /health stays green"
    added = ",".join((*(asked.allowed_hosts or ("localhost", "localhost:*")), name))
    return Finding(title, Mark.WRONG, text, f"export {_HOSTS}={added}")


def _origin(asked: AskedServer, name: str) -> Finding:
    """Returns whether the user interface can change things under a name: its pages send their origin."""
    title = f"pages of {name}"
    allowed = [one.strip() for one in asked.environ.get(_ORIGINS, "").split(",") if one.strip()]
    if any(fnmatch(f"{scheme}://{name}", one) for one in allowed for scheme in ("http", "https")):
        return Finding(title, Mark.GOOD, "may change things")
    text = "the user interface can be read, but every change is refused: the browser names another origin"
    return Finding(title, Mark.NOTE, text, f"export {_ORIGINS}=https://{name}")


def _authentication(asked: AskedServer) -> Iterator[Finding]:
    if not asked.basic_auth:
        text = "everybody who reaches the server may read, write and delete"
        yield Finding(
            "users", Mark.NOTE, text, "mlflow server --app-name basic-auth, and look with --basic-auth"
        )
        return
    if find_spec("flask_wtf") is None:
        yield Finding("users", Mark.WRONG, "Flask-WTF is not installed", "pip install Flask-WTF")
    if asked.environ.get(_SECRET):
        yield Finding("secret key", Mark.GOOD, f"set in {_SECRET}")
    else:
        command = f"export {_SECRET}=$(openssl rand -hex 32)"
        yield Finding("secret key", Mark.WRONG, f"{_SECRET} is not set: the server does not start", command)
    yield _password(asked)


def _password(asked: AskedServer) -> Finding:
    title = "administrator"
    password, source = asked.environ.get(_PASSWORD), _PASSWORD
    path = asked.environ.get(_CONFIG)
    if password is None and path:
        source = path
        try:
            file = ConfigParser()
            with open(path, encoding="utf-8") as text:  # noqa: PTH123 - as MLflow reads it
                file.read_file(text)
            password = file["mlflow"].get("admin_password")
        except (OSError, Error, KeyError, UnicodeDecodeError) as error:
            return Finding(title, Mark.WRONG, f"{_CONFIG} cannot be read: {type(error).__name__}: {path}")
    if not password:
        said = f"no password in {_PASSWORD}: the server does not start where it has no administrator yet"
        return Finding(title, Mark.WRONG, said, f"export {_PASSWORD}=...")
    if password == _SHIPPED or len(password) < _SHORTEST_PASSWORD:
        said = (
            f"the password in {source} is known to everybody, or shorter than {_SHORTEST_PASSWORD} characters"
        )
        return Finding(title, Mark.WRONG, said, "choose another; it counts until the administrator is made")
    return Finding(title, Mark.GOOD, f"has a password, in {source}")
