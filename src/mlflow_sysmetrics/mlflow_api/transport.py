"""Where the preflight meets MLflow: its own request path, with one try and in bounded time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.classification import fault_of_error
from mlflow_sysmetrics.mlflow_api.secrets import remember_credentials, remember_headers
from mlflow_sysmetrics.runtime.bounded_calls import bounded

_LONGEST_BODY = 4_000_000  # of a run with thousands of tags and metrics
# The read timeout is for each piece. In pieces so small an answer that drips in shows soon that it is late.
_PIECE_BYTES = 64
_CONNECT_SECONDS = 10  # a cold container behind a load balancer is connected to at once; it answers late
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class _NoRetries(int):
    """Zero, but true: MLflow 2.8 writes ``max_retries or 5``."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class ServerAnswer:
    """What a server answered.

    Attributes:
        status_code: of HTTP.
        text: the body.
        headers: by name, in any case.
        seconds: how long it took.
        redirected_to: the address that answered, where that is not the one that was asked.
    """

    status_code: int
    text: str
    headers: Mapping[str, str]
    seconds: float
    redirected_to: str | None = None


def get(tracking_uri: str, path: str, timeout: float) -> ServerAnswer:
    """Asks a server once, through MLflow's own request path.

    Args:
        tracking_uri: of http, https, databricks, or a plugin's that speaks MLflow's REST protocol.
        path: below the tracking URI, as ``/health``.
        timeout: in seconds, for all of it: names, tokens, connection, answer.

    Raises:
        Fault: no answer came in that time; says why, without secrets.
    """
    return request(tracking_uri, "GET", path, timeout)


def request(
    tracking_uri: str,
    method: str,
    path: str,
    timeout: float,
    *,
    json: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> ServerAnswer:
    """Sends one request as MLflow would, with its credentials, headers, certificates and plugins, once.

    Raises:
        Fault: no answer came in time; says why, without secrets.
    """
    body = {key: value for key, value in (("json", json), ("params", params)) if value is not None}
    began = time.monotonic()
    try:
        return bounded(lambda: _ask(tracking_uri, method, path, timeout, body), timeout)
    except Exception as error:  # noqa: BLE001 - also of credential providers and auth plugins, which run in there
        fault = fault_of_error(error, tracking_uri, seconds=time.monotonic() - began)
    raise fault  # out here it carries no exception of MLflow's, whose text has the whole URI


def _ask(tracking_uri: str, method: str, path: str, timeout: float, body: Mapping[str, Any]) -> ServerAnswer:
    from mlflow.utils.rest_utils import http_request

    began = time.monotonic()
    creds = host_creds(tracking_uri)
    remember_credentials(*(getattr(creds, name, None) for name in ("username", "password", "token")))
    response = http_request(
        creds,
        path,
        method,
        max_retries=_NoRetries(0),
        raise_on_status=False,
        stream=True,
        **_timeouts(creds, timeout),
        **body,
    )
    for one in (*getattr(response, "history", ()), response):
        remember_headers(getattr(getattr(one, "request", None), "headers", None) or {})
    text = _read(response, began + timeout)
    came_from = str(response.url or "").partition("?")[0] if response.history else None
    seconds = time.monotonic() - began
    return ServerAnswer(response.status_code, text, response.headers, seconds, came_from)


def _timeouts(creds: Any, timeout: float) -> dict[str, Any]:
    """Returns the timeouts of a request, in the form that what makes it understands."""
    if getattr(creds, "use_databricks_sdk", False):  # it takes one whole number, and retries by itself
        return {"timeout": max(int(timeout), 1), "retry_timeout_seconds": max(int(timeout), 1)}
    return {"timeout": (min(timeout, _CONNECT_SECONDS), timeout)}


def _read(response: Any, ends: float) -> str:
    received = bytearray()
    for piece in response.iter_content(_PIECE_BYTES):
        received += piece
        if time.monotonic() > ends or len(received) > _LONGEST_BODY:
            break  # whoever waited has gone, or this is no answer of MLflow
    response.close()
    return received.decode("utf-8", "replace")


def host_creds(tracking_uri: str) -> Any:
    """Returns the host and credentials that MLflow would use now, read anew.

    Only for what `is_remote`: a database would be opened, which MLflow tries for a minute and a half.
    """
    return open_client(tracking_uri)._tracking_client.store.get_host_creds()  # noqa: SLF001 - as the sink does


def open_client(tracking_uri: str) -> Any:
    """Returns an `MlflowClient`; for a database this connects, and makes or migrates tables."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri)


def load(tracking_uri: str) -> None:
    """Imports what speaking to a store takes, which on a slow disk takes longer than a timeout allows."""
    import mlflow
    import mlflow.store.tracking.rest_store
    import mlflow.tracking

    if is_database(tracking_uri):
        import mlflow.store.db.utils
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - as above


def is_remote(tracking_uri: str) -> bool:
    """Returns False for a database or a directory, which asking how it is spoken to would open."""
    scheme = fluent_state.scheme_of(tracking_uri)
    return scheme not in {"", "file", "sqlite", "postgresql", "mysql", "mssql"}


def is_databricks(tracking_uri: str) -> bool:
    """Returns whether a tracking URI is of Databricks, which the environment or a profile tells more of."""
    return tracking_uri.partition(":")[0] == "databricks"


def is_database(tracking_uri: str) -> bool:
    """Returns whether a tracking URI is of a database that is opened here."""
    return tracking_uri.startswith(_DATABASES)


def speaks_rest(tracking_uri: str) -> bool:
    """Returns whether MLflow's REST protocol is spoken at a tracking URI, by MLflow's own client of it."""
    if tracking_uri.partition(":")[0] in {"http", "https"}:
        return True
    from mlflow.store.tracking.rest_store import RestStore

    store = getattr(open_client(tracking_uri)._tracking_client, "store", None)  # noqa: SLF001 - as above
    return isinstance(store, RestStore) and all(
        getattr(type(store), name) is getattr(RestStore, name)
        for name in ("log_batch", "get_run", "create_run", "_call_endpoint")
    )


def look_into_database(tracking_uri: str) -> None:
    """Connects once and reads the catalogue; MLflow itself would try for a minute and a half, in silence."""
    from mlflow.store.db import utils
    from sqlalchemy import inspect

    getattr(utils, "_make_parent_dirs_if_sqlite", lambda _uri: None)(tracking_uri)
    engine = utils.create_sqlalchemy_engine(tracking_uri)
    try:
        inspect(engine).get_table_names()
    finally:
        engine.dispose()


def auth_plugins() -> frozenset[str]:
    """Returns the names that MLFLOW_TRACKING_AUTH may have here."""
    from mlflow.tracking.request_auth.registry import (
        _request_auth_provider_registry,
    )

    return frozenset(str(provider.get_name()) for provider in _request_auth_provider_registry)


def log_batch(  # noqa: PLR0917 - those of MLflow's own
    client: Any,
    run_id: str,
    metric: tuple[str, float],
    timestamp: int,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """Writes a metric at step 0, parameters and tags through a client."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[Metric(metric[0], metric[1], timestamp, 0)],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
