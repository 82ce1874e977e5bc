"""Whether a started server really works: a green /health proves neither the database nor the host names."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer, send_directly
from mlflow_sysmetrics.preflight.cleanup import RestDeleter
from mlflow_sysmetrics.preflight.verification import Verification
from mlflow_sysmetrics.server.allowed_hosts import example_of
from mlflow_sysmetrics.server.ports import listens
from mlflow_sysmetrics.server.supervised import SupervisedProcess

_log = logging.getLogger("mlflow_sysmetrics")

_LOOK_SECONDS = 0.1
_HEALTH_SECONDS = 5.0
_ANSWER_SECONDS = 30.0  # for a database that creates its first run on a busy machine
# MLflow creates it in every new store. Our own experiment would be left behind, deleted, at each start.
_EXPERIMENT = "Default"
_FOREIGN_HOST = "not-this-server.invalid"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """The address of a server, and how requests to it identify themselves.

    Attributes:
        host: address to connect to.
        port: to connect to.
        host_header: the Host header; None for host and port.
        user: name and password for basic authentication; None for none.
    """

    host: str
    port: int
    host_header: str | None = None
    user: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The tracking URI, without user and password."""
        return f"http://{self.host}:{self.port}"


class DirectStore(RestStore):
    """A store that sends one plain request per question, without MLflow's client and environment.

    Args:
        address: the server's address.
    """

    def __init__(self, address: ServerAddress) -> None:
        super().__init__(address.url)
        self._address = address

    def _ask(self, method: str, path: str, seconds: float, **body: Any) -> ServerAnswer:
        self.status_code = None
        answer = _ask(self._address, method, path, seconds, **body)
        self.status_code = answer.status_code
        return answer


class DirectDeleter(RestDeleter):
    """Deletes runs and experiments with the same plain requests.

    Args:
        address: the server's address.
    """

    def __init__(self, address: ServerAddress) -> None:
        super().__init__(address.url)
        self._address = address

    def _ask(self, path: str, body: Mapping[str, object], seconds: float) -> ServerAnswer:
        return _ask(self._address, "POST", path, seconds, json=body)


def _ask(address: ServerAddress, method: str, path: str, seconds: float, **body: Any) -> ServerAnswer:
    at = (address.host, address.port)
    return send_directly(
        at, method, path, seconds, host_header=address.host_header, user=address.user, **body
    )


def wait_until_ready(
    process: SupervisedProcess, address: ServerAddress, allowed: Sequence[str], seconds: float
) -> None:
    """Returns once a run has been created on the server, logged to and read back, and its names work.

    Args:
        process: the server.
        address: the server's address.
        allowed: patterns of its allowed host names, as it was started with; empty for MLflow's default.
        seconds: longest wait.

    Raises:
        ServerStartError: it ended, is not ready in time, or rejects one of its names.
    """
    ends = time.monotonic() + seconds
    reason = "it does not listen on its port"
    while True:
        if process.exit_code() is not None:
            raise ServerStartError(
                f"The tracking server ended with exit code {process.exit_code()} during startup."
            )
        fault = _fault_of(process, address)
        if fault is None:
            break
        reason = fault
        if time.monotonic() > ends:
            raise ServerStartError(
                f"The tracking server is not ready within {seconds:g} s: {reason}. On a slow machine, or "
                "with a large database, use a larger start_timeout."
            )
        process.wait(_LOOK_SECONDS)
    _check_names(address, allowed)


def _fault_of(process: SupervisedProcess, address: ServerAddress) -> str | None:
    """Returns why a server is not ready yet; None if it is."""
    if process.pid is not None and listens(process.pid, address.port) is False:
        return "none of its processes listens on its port"
    try:
        DirectStore(address).reach(_HEALTH_SECONDS)
    except Fault as fault:
        return fault.reason
    verification = Verification(
        address.url,
        _EXPERIMENT,
        timeout=_ANSWER_SECONDS,
        connect=lambda _uri: (DirectStore(address), DirectDeleter(address)),
    )
    failed = next((step for step in verification.steps() if not step.passed), None)
    verification.clean_up()  # what cannot be deleted costs the rows of one run
    return None if failed is None else f"{failed.name}: {failed.text}"


def _check_names(address: ServerAddress, allowed: Sequence[str]) -> None:
    for pattern in allowed:
        name = example_of(pattern, address.port)
        if _rejects(replace(address, host_header=name)):
            raise ServerStartError(
                f"The tracking server rejects the host name {name!r}, although {pattern!r} allows it."
            )
    if allowed and "*" not in allowed and not _rejects(replace(address, host_header=_FOREIGN_HOST)):
        _log.warning(
            "mlflow-sysmetrics: allowed_hosts has no effect, because this version of MLflow does not check "
            "host names. Use MLflow 3.5 or newer."
        )


def _rejects(address: ServerAddress) -> bool:
    try:
        DirectStore(address).experiment_named(_EXPERIMENT, _ANSWER_SECONDS)
    except Fault as fault:
        return fault.cause is Cause.WRONG_HOST
    return False
