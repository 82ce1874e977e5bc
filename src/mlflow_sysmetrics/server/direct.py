"""A server on this machine, spoken to directly: no proxy, no credentials but its own, any Host header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer, send_directly
from mlflow_sysmetrics.preflight.cleanup import RestRemoval


@dataclass(frozen=True, kw_only=True)
class Door:
    """How a server is called.

    Attributes:
        host: address that is connected to.
        port: of the same.
        called: the Host header; None for host and port.
        user: name and password of basic authentication; None where none is asked for.
    """

    host: str
    port: int
    called: str | None = None
    user: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The tracking URI, without user and password."""
        return f"http://{self.host}:{self.port}"


class DirectStore(RestStore):
    """Answers each question with one request, for which MLflow's client and environment are not asked.

    Args:
        door: how the server is called.
    """

    def __init__(self, door: Door) -> None:
        super().__init__(door.url)
        self._door = door

    def _ask(self, method: str, path: str, seconds: float, **body: Any) -> ServerAnswer:
        self.status_code = None
        answer = _ask(self._door, method, path, seconds, **body)
        self.status_code = answer.status_code
        return answer


class DirectRemoval(RestRemoval):
    """Removes what was made, in the same way.

    Args:
        door: how the server is called.
    """

    def __init__(self, door: Door) -> None:
        super().__init__(door.url)
        self._door = door

    def _ask(self, path: str, body: Mapping[str, object], seconds: float) -> ServerAnswer:
        return _ask(self._door, "POST", path, seconds, json=body)


def _ask(door: Door, method: str, path: str, seconds: float, **body: Any) -> ServerAnswer:
    address = (door.host, door.port)
    return send_directly(address, method, path, seconds, host_header=door.called, user=door.user, **body)
