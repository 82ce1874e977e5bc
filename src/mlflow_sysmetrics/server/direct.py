"""Direct requests to a server on this machine: no proxy, only its own credentials, any Host header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer, send_directly
from mlflow_sysmetrics.preflight.cleanup import RestDeleter


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
