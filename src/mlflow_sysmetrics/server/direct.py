"""A server on this machine, spoken to directly: no proxy, no credentials but its own, any Host header."""

from __future__ import annotations

import base64
import json as json_of
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode

from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer
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


def _ask(
    door: Door,
    method: str,
    path: str,
    seconds: float,
    *,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> ServerAnswer:
    began = time.monotonic()
    headers = {"Host": door.called or f"{door.host}:{door.port}"}
    if door.user is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(door.user).encode()).decode()}"
    if json is not None:
        headers["Content-Type"] = "application/json"
    target = f"{path}?{urlencode(params)}" if params else path
    body = None if json is None else json_of.dumps(json)
    try:
        with closing(HTTPConnection(door.host, door.port, timeout=seconds)) as connection:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise fault_of_error(error, door.url, seconds=seconds) from None
    return ServerAnswer(answer.status, text, dict(answer.headers.items()), time.monotonic() - began)
