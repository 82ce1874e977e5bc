"""Direct requests to a server on this machine: no proxy, only its own credentials, any Host header."""

from __future__ import annotations

import base64
import json as json_of
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

from mlflow_sysmetrics.mlflow_api.classification import fault_of_answer, fault_of_error
from mlflow_sysmetrics.mlflow_api.rest_store import RestStore
from mlflow_sysmetrics.mlflow_api.transport import ServerAnswer
from mlflow_sysmetrics.preflight.cleanup import RestDeleter

_API = "/api/2.0/mlflow/"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """The address of a server, and how requests to it identify themselves.

    Attributes:
        host: address to connect to.
        port: to connect to.
        host_header: None for host and port.
        user: name and password of basic authentication; None for none.
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
        address: of the server.
    """

    def __init__(self, address: ServerAddress) -> None:
        super().__init__(address.url)
        self._address = address

    def _ask(self, method: str, path: str, seconds: float, **body: Mapping[str, object]) -> ServerAnswer:
        self.status_code = None
        answer = _ask(self._address, method, path, seconds, **body)
        self.status_code = answer.status_code
        return answer


class DirectDeleter(RestDeleter):
    """Deletes runs and experiments with the same plain requests.

    Args:
        address: of the server.
    """

    def __init__(self, address: ServerAddress) -> None:
        super().__init__(address.url)
        self._address = address

    def _post(self, endpoint: str, body: Mapping[str, object], seconds: float) -> str:
        answer = _ask(self._address, "POST", f"{_API}{endpoint}", seconds, json=body)
        fault = fault_of_answer(answer.status_code, answer.text, answer.headers, self._address.url)
        if fault is not None:
            raise fault
        return answer.text


def _ask(
    address: ServerAddress,
    method: str,
    path: str,
    seconds: float,
    *,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> ServerAnswer:
    began = time.monotonic()
    headers = {"Host": address.host_header or f"{address.host}:{address.port}"}
    if address.user is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(address.user).encode()).decode()}"
    if json is not None:
        headers["Content-Type"] = "application/json"
    target = f"{path}?{urlencode(params)}" if params else path
    body = None if json is None else json_of.dumps(json)
    try:
        with closing(HTTPConnection(address.host, address.port, timeout=seconds)) as connection:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise fault_of_error(error, address.url, seconds=seconds) from None
    return ServerAnswer(answer.status, text, dict(answer.headers.items()), time.monotonic() - began)
