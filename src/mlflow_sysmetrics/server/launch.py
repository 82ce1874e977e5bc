"""Starts a tracking server on this machine from the options of a `LocalServer`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.mlflow_api.faults import Fault
from mlflow_sysmetrics.mlflow_api.secrets import cleaned, remember_credentials, remember_environment
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.runtime.local_paths import local_directory
from mlflow_sysmetrics.server.allowed_hosts import with_ports
from mlflow_sysmetrics.server.config import (
    ADMIN,
    BasicAuth,
    ServerConfig,
    check_port_number,
    environment_of_server,
    server_command,
    write_auth_file,
)
from mlflow_sysmetrics.server.database import reach_database
from mlflow_sysmetrics.server.ports import check_port, free_port
from mlflow_sysmetrics.server.readiness import ServerAddress, wait_until_ready
from mlflow_sysmetrics.server.store_uri import server_store
from mlflow_sysmetrics.server.supervised import SupervisedProcess

LOG = "server.log"
_DATABASE, _ARTIFACTS = "mlflow.db", "artifacts"
_DATABASE_SECONDS = 15.0  # MLflow itself tries silently for a minute and a half
_EVERYWHERE = "0.0.0.0"  # the caller chooses the address
_LOOPBACK = "127.0.0.1"
# Another process may take the free port before the server does.
_ATTEMPTS = 3
_PORT_TAKEN = ("address already in use", "connection in use", "only one usage of each socket address")
_TAIL_LINES = 25
_TAIL_CHARACTERS = 16_384  # bounds a log that is one endless line


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The arguments of a `LocalServer`, where they are described.

    Raises:
        SettingsError: a value is invalid.
    """

    backend_store_uri: str | None = field(default=None, repr=False)
    artifacts_destination: str | None = None
    host: str = _LOOPBACK
    port: int | None = None
    workers: int = 1
    allowed_hosts: tuple[str, ...] = ()
    admin_password: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    start_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.port is not None:
            check_port_number(self.port)
        uri = self.backend_store_uri
        if uri is not None and not isinstance(uri, str):
            raise SettingsError(
                f"backend_store_uri must be a string such as 'sqlite:////PATH.db' or None, got {uri!r}"
            )
        if not isinstance(self.start_timeout, (int, float)) or not self.start_timeout > 0:
            raise SettingsError(f"start_timeout must be a number of seconds > 0, got {self.start_timeout!r}")
        for name, value in self.environ.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise SettingsError(
                    f"environ must map strings to strings, got {name!r}: {type(value).__name__}"
                )
        # A ServerConfig is built at each start; build one now so that an invalid value is reported early.
        ServerConfig(
            backend_store_uri="",
            artifacts_destination="",
            host=self.host,
            workers=self.workers,
            allowed_hosts=self.allowed_hosts,
        )


class RunningServer(NamedTuple):
    """A server that is ready, and its address."""

    process: SupervisedProcess
    address: ServerAddress


def start_server(options: ServerOptions, directory: Path) -> RunningServer:
    """Starts a server and returns it once it is ready.

    Args:
        options: the server's options.
        directory: holds its log, and all files that the options do not place elsewhere.

    Raises:
        ServerStartError: it does not start; says why, what to do, and how its log ends.
        SettingsError: the options do not name a database, or the password is invalid.
    """
    # Relative to the server's directory, whose name may contain characters with a meaning in a URI.
    store = f"sqlite:///{_DATABASE}"
    if options.backend_store_uri is not None:
        store = server_store(options.backend_store_uri)
        _check_database(store)
    _check_artifacts(_artifacts(options, directory))
    auth = None if options.admin_password is None else write_auth_file(directory, options.admin_password)
    for attempts_left in reversed(range(_ATTEMPTS)):
        port = options.port or free_port(options.host)
        check_port(options.host, port)
        try:
            return _run(options, _config(options, store, directory, port, auth), directory)
        except ServerStartError as error:
            taken = any(words in error.log_tail.lower() for words in _PORT_TAKEN)
            if options.port is not None or not taken or not attempts_left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _config(
    options: ServerOptions, store: str, directory: Path, port: int, auth: BasicAuth | None
) -> ServerConfig:
    names: tuple[str, ...] = ()
    if options.allowed_hosts:  # the server's own URL is always allowed
        own = {_LOOPBACK, "localhost", options.host} - {_EVERYWHERE}
        names = (*options.allowed_hosts, *(f"{name}:{port}" for name in sorted(own)))
    return ServerConfig(
        backend_store_uri=store,
        artifacts_destination=_artifacts(options, directory),
        host=options.host,
        port=port,
        workers=options.workers,
        allowed_hosts=names,
        basic_auth=auth,
    )


def _artifacts(options: ServerOptions, directory: Path) -> str:
    chosen = options.artifacts_destination or str(directory / _ARTIFACTS)
    if "://" in chosen:
        return chosen
    try:
        return str(local_directory("artifacts_destination", chosen))
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _check_artifacts(destination: str) -> None:
    """Checks that artifacts can be written to a directory, which is created; skips object stores.

    A server that cannot write them stays silent and answers 500 to the first one, after hours of training.
    """
    scheme, colon, path = destination.rpartition("://")
    if colon and scheme != "file":
        return
    directory = Path(unquote(path)) if colon else Path(destination)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):  # has no name, so nothing is left behind in any case
            pass
    except OSError as error:
        raise ServerStartError(
            f"Artifacts cannot be written to {directory}: {error.strerror}. "
            "Choose another artifacts_destination, or make this user its owner."
        ) from error


def _run(options: ServerOptions, config: ServerConfig, directory: Path) -> RunningServer:
    command = server_command(config)
    environ = {**environment_of_server(command, os.environ), **options.environ}
    # Its log, which an error quotes, may show what this process's own environment does not hold.
    remember_environment(environ)
    remember_credentials(ADMIN, options.admin_password, None)
    log = directory / LOG
    begin = log.stat().st_size if log.exists() else 0
    user = None if options.admin_password is None else (ADMIN, options.admin_password)
    host = _LOOPBACK if config.host == _EVERYWHERE else config.host
    address = ServerAddress(host=host, port=config.port, user=user)
    process = SupervisedProcess(command.argv, environ, directory, log)
    try:
        wait_until_ready(process, address, with_ports(config.allowed_hosts), options.start_timeout)
    except ServerStartError as error:
        process.stop()
        raise ServerStartError(error.reason, log_tail(log, begin, config.backend_store_uri)) from None
    except BaseException:  # Ctrl-C, too
        process.stop()
        raise
    return RunningServer(process, address)


def _check_database(store: str) -> None:
    """Checks that a database accepts us; an sqlite file need not exist yet, but its directory is created."""
    if store.startswith("sqlite"):
        file = Path(store.partition(":///")[2].partition("?")[0])
        if file.parts and file.parts[0].startswith("~"):
            raise ServerStartError(
                f"The path in a database URI must be complete, got {store}: ~ is not expanded there. "
                f"Write sqlite:///{file.expanduser()}"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        return
    try:
        reach_database(store, _DATABASE_SECONDS)
    except Fault as fault:
        reason = fault.reason if fault.reason.endswith(("?", ".")) else f"{fault.reason}."
        raise ServerStartError(
            f"The database {redacted(store)} refuses the connection: {reason} {remedy(fault, store)}"
        ) from None


def log_tail(path: Path, begin: int, *uris: str) -> str:
    """Returns the last lines of a log, without passwords; empty if there is no log.

    Args:
        path: the log file.
        begin: offset in the file; what precedes it belongs to an earlier start.
        uris: URIs with passwords that the log may quote.
    """
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            # Twice as much as is shown: half a secret, where the text begins, is not recognised.
            log.seek(max(begin, size - 2 * _TAIL_CHARACTERS))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    for uri in ("", *uris):
        text = cleaned(text, uri)
    return "\n".join(text[-_TAIL_CHARACTERS:].strip().splitlines()[-_TAIL_LINES:])
