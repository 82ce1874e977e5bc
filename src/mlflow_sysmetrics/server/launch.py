"""Brings a tracking server up on this machine, from what its user has said of it."""

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
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.preflight.remedies import remedy
from mlflow_sysmetrics.server.allowed_hosts import with_ports
from mlflow_sysmetrics.server.auth_file import ADMIN, write_auth_file
from mlflow_sysmetrics.server.config import (
    BasicAuth,
    ServerConfig,
    check_port_number,
    environment_of_server,
    server_command,
)
from mlflow_sysmetrics.server.database import reach_database
from mlflow_sysmetrics.server.direct import Door
from mlflow_sysmetrics.server.ports import check_port, free_port
from mlflow_sysmetrics.server.readiness import wait_until_it_answers
from mlflow_sysmetrics.server.store_uri import server_store
from mlflow_sysmetrics.server.supervised import SupervisedProcess

# FOLDED log_tail: The end of a log file.

_LINES = 25
_BYTES = 16_384  # of a log that is one endless line


def log_tail(path: Path, begin: int, *uris: str) -> str:
    """Returns the last lines of a log, without passwords; empty where there is none.

    Args:
        path: of the log.
        begin: where in the file it begins: what stands before is of an earlier start.
        uris: with passwords that the log may quote.
    """
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(begin, size - _BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    for uri in uris:
        text = cleaned(text, uri)
    return "\n".join(text.strip().splitlines()[-_LINES:])


LOG = "server.log"
_DATABASE, _ARTIFACTS = "mlflow.db", "artifacts"
_DATABASE_SECONDS = 15.0  # MLflow itself tries for a minute and a half, in silence
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is listened on is the caller's choice
_LOOPBACK = "127.0.0.1"
# Between the choice of a free port and the server's taking it somebody else may be faster.
_TRIES = 3
_PORT_TAKEN = ("address already in use", "connection in use", "only one usage of each socket address")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the user of a `LocalServer` has said of it; the arguments are explained there."""

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
            raise SettingsError(f"backend_store_uri is {uri!r}; it must be text such as 'sqlite:////PATH.db'")
        if not isinstance(self.start_timeout, (int, float)) or not self.start_timeout > 0:
            raise SettingsError(
                f"start_timeout is {self.start_timeout!r}; it must be a number of seconds over 0"
            )
        for name, value in self.environ.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise SettingsError(f"environ has {name!r}, which must map text to text")
        # The rest is checked where it is used; a wrong word shall not wait for that.
        ServerConfig(
            backend_store_uri="",
            artifacts_destination="",
            host=self.host,
            workers=self.workers,
            allowed_hosts=self.allowed_hosts,
        )


class Launched(NamedTuple):
    """A server that answers, and how it is called."""

    process: SupervisedProcess
    door: Door


def launched(plan: Plan, files: Path) -> Launched:
    """Starts a server and returns it once it answers.

    Args:
        plan: what it is to be.
        files: directory of its log and of what the plan has no other place for.

    Raises:
        ServerStartError: it does not come up; says why, what to do, and how its log ends.
        SettingsError: the plan names no database, or a password that is too short.
    """
    # Relative to where the server runs: the directory's name may have what means something else in a URI.
    store = f"sqlite:///{_DATABASE}"
    if plan.backend_store_uri is not None:
        store = server_store(plan.backend_store_uri)
        _check_database(store)
    _check_artifacts(_artifacts(plan, files))
    auth = None if plan.admin_password is None else write_auth_file(files, plan.admin_password)
    for tries_left in reversed(range(_TRIES)):
        port = plan.port or free_port(plan.host)
        check_port(plan.host, port)
        try:
            return _run(plan, _config(plan, store, files, port, auth), files)
        except ServerStartError as error:
            taken = any(words in error.log_tail.lower() for words in _PORT_TAKEN)
            if plan.port is not None or not taken or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _config(plan: Plan, store: str, files: Path, port: int, auth: BasicAuth | None) -> ServerConfig:
    names: tuple[str, ...] = ()
    if plan.allowed_hosts:  # its own URL is one of them, whatever else is
        own = {_LOOPBACK, "localhost", plan.host} - {_EVERYWHERE}
        names = (*plan.allowed_hosts, *(f"{name}:{port}" for name in sorted(own)))
    return ServerConfig(
        backend_store_uri=store,
        artifacts_destination=_artifacts(plan, files),
        host=plan.host,
        port=port,
        workers=plan.workers,
        allowed_hosts=names,
        basic_auth=auth,
    )


def _artifacts(plan: Plan, files: Path) -> str:
    chosen = plan.artifacts_destination or str(files / _ARTIFACTS)
    return chosen if "://" in chosen else str(Path(chosen).absolute())


def _check_artifacts(destination: str) -> None:
    """Checks that artifacts can be written to a directory, which is made; an object store is not asked.

    A server that cannot write them says nothing, and answers 500 to the first one, after hours of training.
    """
    scheme, colon, path = destination.rpartition("://")
    if colon and scheme != "file":
        return
    directory = Path(unquote(path)) if colon else Path(destination)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):  # has no name, so it is gone whatever happens
            pass
    except OSError as error:
        raise ServerStartError(
            f"Artifacts cannot be written to {directory}: {error.strerror}. "
            "Choose another artifacts_destination, or have this user own it."
        ) from error


def _run(plan: Plan, config: ServerConfig, files: Path) -> Launched:
    command = server_command(config)
    environ = {**environment_of_server(command, os.environ), **plan.environ}
    log = files / LOG
    begin = log.stat().st_size if log.exists() else 0
    user = None if plan.admin_password is None else (ADMIN, plan.admin_password)
    door = Door(host=_LOOPBACK if config.host == _EVERYWHERE else config.host, port=config.port, user=user)
    process = SupervisedProcess(command.argv, environ, files, log)
    try:
        wait_until_it_answers(process, door, with_ports(config.allowed_hosts), plan.start_timeout)
    except ServerStartError as error:
        process.stop()
        raise ServerStartError(error.reason, log_tail(log, begin, config.backend_store_uri)) from None
    except BaseException:  # Ctrl-C, too
        process.stop()
        raise
    return Launched(process, door)


def _check_database(store: str) -> None:
    """Checks that a database lets us in; a file need not exist yet, but its directory is made."""
    if store.startswith("sqlite"):
        Path(store.partition(":///")[2].partition("?")[0]).parent.mkdir(parents=True, exist_ok=True)
        return
    try:
        reach_database(store, _DATABASE_SECONDS)
    except Fault as fault:
        said = fault.reason if fault.reason.endswith(("?", ".")) else f"{fault.reason}."
        raise ServerStartError(
            f"The database {redacted(store)} does not let us in: {said} {remedy(fault, store)}"
        ) from None
