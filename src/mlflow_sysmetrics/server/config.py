"""What a tracking server is to be, and the command line and environment that make it so."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.server.allowed_hosts import origins_of, with_ports

# FOLDED mlflow_variables: What the installed MLflow makes of its environment variables.

_JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"


def runs_jobs() -> bool:
    """Returns whether a server started in this environment would start processes for jobs beside it."""
    from mlflow import environment_variables

    variable = getattr(environment_variables, _JOBS, None)
    return variable is not None and bool(variable.get())


_MOST_PORTS = 65_535
_NOT_IN_A_LIST = re.compile(r"[\s,]")
# A program's own settings of MLflow say where IT logs to; the server is what its configuration says. What is
# said here in these names is about the database and the artifact store behind a server, and holds for both.
_ABOUT_STORES = ("MLFLOW_S3_", "MLFLOW_SQLALCHEMYSTORE_", "MLFLOW_MYSQL_", "MLFLOW_GCS_", "MLFLOW_ARTIFACT_")
_ABOUT_SERVERS = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "FLASK_")
# In a test's server, MLflow would look into every database session for writes.
_OF_TESTS = frozenset({"PYTEST_CURRENT_TEST"})
_ALWAYS = {
    # Eight more processes and 0.6 GB, for jobs that only MLflow's own evaluation of traces uses.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_RUN_CONTEXT_PROVIDER": "none",  # the server makes no runs of its own
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow imports GitPython, which complains where there is no git
}


class ServerCommand(NamedTuple):
    """How a server is started: its command line, and what it needs in its environment."""

    argv: tuple[str, ...]
    environ: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class BasicAuth:
    """Basic authentication by MLflow's own app.

    Attributes:
        config_path: MLflow's file of it, with the first administrator and the database of users.
        secret_key: signs the forms of the user interface; the same for all servers of one address.
    """

    config_path: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a tracking server is to be.

    Attributes:
        backend_store_uri: SQLAlchemy's URI of the database, with the driver in it; it may hold a password.
        artifacts_destination: directory or URI from which the server serves artifacts.
        host: address to listen on.
        port: to listen on.
        workers: processes that answer; with one, the server has no further ones.
        allowed_hosts: names that clients may call it by; empty for MLflow's default, which is localhost and
            private addresses. A name without a port holds for every port.
        basic_auth: who may use it; None for everybody who reaches it.
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
            raise SettingsError(f"workers is {self.workers!r}; it must be a whole number from 1")
        if not isinstance(self.host, str) or not self.host or ":" in self.host or self.host.startswith("-"):
            raise SettingsError(f"host is {self.host!r}; it must be a name or an IPv4 address to listen on")
        for name in self.allowed_hosts:
            if not isinstance(name, str) or not name or _NOT_IN_A_LIST.search(name) or "://" in name:
                raise SettingsError(
                    f"allowed_hosts has {name!r}; write host names such as 'mlflow' or '*.example.org:443'"
                )


def server_command(config: ServerConfig) -> ServerCommand:
    """Returns the command line and the environment of a server.

    The options are those that every MLflow since 2.8 has. What came later is said in the environment, where
    an older MLflow does not look; so no version needs to be known. Passwords are in the environment too:
    everybody on a machine can read command lines.
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
    """Returns the whole environment of a server: the caller's, without what would make it another server."""
    kept = {name: value for name, value in of_caller.items() if not _is_left_out(name)}
    return {**kept, **command.environ}


def check_port_number(port: object) -> None:
    """Checks that something is a port.

    Raises:
        SettingsError: it is none.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= _MOST_PORTS:
        raise SettingsError(f"port is {port!r}; it must be a whole number from 1 to {_MOST_PORTS}")


def _is_left_out(name: str) -> bool:
    upper = name.upper()  # of Windows, names have no case
    if upper in _OF_TESTS:
        return True
    return upper.startswith(_ABOUT_SERVERS) and not upper.startswith(_ABOUT_STORES)
