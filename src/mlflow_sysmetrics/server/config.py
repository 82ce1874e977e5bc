"""The configuration of a tracking server, and the command line, environment and files made of it."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.allowed_hosts import origins_of, with_ports

_LAST_PORT = 65_535
_NOT_IN_A_LIST = re.compile(r"[\s,]")
# MLflow's variables in a program's environment say where that program logs to, which does not concern the
# server. Those with these prefixes are about the database and the artifact store, and apply to both.
_ABOUT_STORES = ("MLFLOW_S3_", "MLFLOW_SQLALCHEMYSTORE_", "MLFLOW_MYSQL_", "MLFLOW_GCS_", "MLFLOW_ARTIFACT_")
_ABOUT_SERVERS = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "FLASK_")
# With it set, MLflow would check every database session of the server for writes.
_OF_TESTS = frozenset({"PYTEST_CURRENT_TEST"})
_ALWAYS = {
    # Eight more processes and 0.6 GB, for jobs that only MLflow's evaluation of traces uses.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_RUN_CONTEXT_PROVIDER": "none",  # the server itself creates no runs
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow imports GitPython, which warns if git is not installed
}
ADMIN = "admin"
_FILE, _USERS = "basic_auth.ini", "users.db"
SHORTEST_PASSWORD = 12  # required by MLflow 3; older versions accept any
_OWNER_ONLY = 0o600


class ServerCommand(NamedTuple):
    """The command line of a server, and the variables that it needs in its environment."""

    argv: tuple[str, ...]
    environ: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class BasicAuth:
    """Basic authentication by MLflow's own app.

    Attributes:
        config_path: MLflow's configuration file, with the first administrator and the database of users.
        secret_key: signs the forms of the user interface; the same for all servers behind one address.
    """

    config_path: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The configuration of a tracking server.

    Attributes:
        backend_store_uri: SQLAlchemy URI of the database, including the driver; may contain a password.
        artifacts_destination: directory or URI from which the server serves artifacts.
        host: address to listen on.
        port: port to listen on.
        workers: processes that serve requests; with one, the server has no other processes.
        allowed_hosts: host names that clients may use; empty for MLflow's default, which is localhost and
            private addresses. A name without a port applies to every port.
        basic_auth: basic authentication; with None, anyone who can reach the server may use it.

    Raises:
        SettingsError: a value is invalid.
    """

    backend_store_uri: str = field(repr=False)
    artifacts_destination: str
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    allowed_hosts: tuple[str, ...] = ()
    basic_auth: BasicAuth | None = None

    def __post_init__(self) -> None:
        check_port_number(self.port)
        if not isinstance(self.workers, int) or isinstance(self.workers, bool) or self.workers < 1:
            raise SettingsError(f"workers must be an integer >= 1, got {self.workers!r}")
        if not isinstance(self.host, str) or not self.host or ":" in self.host or self.host.startswith("-"):
            raise SettingsError(f"host must be a name or an IPv4 address to listen on, got {self.host!r}")
        for name in self.allowed_hosts:
            if not isinstance(name, str) or not name or _NOT_IN_A_LIST.search(name) or "://" in name:
                raise SettingsError(
                    "allowed_hosts must contain host names such as 'mlflow' or '*.example.org:443', "
                    f"got {name!r}"
                )


def server_command(config: ServerConfig) -> ServerCommand:
    """Returns the command line and the environment of a server.

    The options are those that every MLflow since 2.8 has. Newer settings go into the environment, where an
    older MLflow ignores them, so no version check is needed. Passwords go into the environment, too: every
    user of a machine can read command lines.
    """
    argv = [sys.executable, "-m", "mlflow", "server"]
    argv += ["--host", config.host, "--port", str(config.port), "--workers", str(config.workers)]
    argv += ["--artifacts-destination", config.artifacts_destination]
    environ = {**_ALWAYS, "MLFLOW_BACKEND_STORE_URI": config.backend_store_uri}
    if config.allowed_hosts:
        environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(with_ports(config.allowed_hosts))
        environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins_of(config.allowed_hosts))
    if config.basic_auth is not None:
        argv += ["--app-name", "basic-auth"]
        environ["MLFLOW_AUTH_CONFIG_PATH"] = config.basic_auth.config_path
        environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = config.basic_auth.secret_key
    return ServerCommand(tuple(argv), environ)


def environment_of_server(command: ServerCommand, of_caller: Mapping[str, str]) -> dict[str, str]:
    """Returns the complete environment of a server: the caller's, without settings of other servers."""
    kept = {name: value for name, value in of_caller.items() if not _is_left_out(name)}
    return {**kept, **command.environ}


def check_port_number(port: object) -> None:
    """Checks that a value is a port number.

    Raises:
        SettingsError: it is not.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _LAST_PORT:
        raise SettingsError(f"port must be an integer from 1 to {_LAST_PORT}, got {port!r}")


def _is_left_out(name: str) -> bool:
    upper = name.upper()  # on Windows, names are case-insensitive
    if upper in _OF_TESTS:
        return True
    return upper.startswith(_ABOUT_SERVERS) and not upper.startswith(_ABOUT_STORES)


def write_auth_file(directory: Path, password: str) -> BasicAuth:
    """Writes the file, readable by its owner only, for a server that keeps its users in a directory.

    MLflow creates the administrator from it at the first start; later the password in its database counts.

    Raises:
        SettingsError: the password is too short, or MLflow would read a different one.
        ServerStartError: Flask-WTF, which MLflow needs for this, is not installed.
    """
    if not isinstance(password, str) or password != password.strip() or not password.isprintable():
        raise SettingsError(
            "admin_password must be printable text without spaces at its ends, which MLflow would strip"
        )
    if len(password) < SHORTEST_PASSWORD:
        raise SettingsError(
            f"admin_password must have at least {SHORTEST_PASSWORD} characters, got {len(password)}"
        )
    if find_spec("flask_wtf") is None:
        raise ServerStartError(
            "Basic authentication needs Flask-WTF, which is not installed. Install it: pip install Flask-WTF"
        )
    file = ConfigParser(interpolation=None)
    file["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{_USERS}",  # relative to the directory, in which the server runs
        "admin_username": ADMIN,
        "admin_password": password.replace("%", "%%"),  # MLflow reads it with interpolation
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    path = directory / _FILE
    path.unlink(missing_ok=True)  # it may be a link, or readable by others
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        file.write(out)
    return BasicAuth(config_path=str(path), secret_key=secrets.token_hex(32))
