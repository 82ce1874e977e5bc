"""Google ID tokens for MLflow's requests: a tracking server on Cloud Run, or behind an identity-aware proxy.

Switched on by MLFLOW_TRACKING_AUTH=google-id-token. Each request gets a token for the server that it goes
to, or for MLFLOW_TRACKING_AUDIENCE (the client id of a proxy, a custom audience of a service). A training may
last for days: tokens live an hour, and are fetched again before they end.

MLflow loads this when it makes its first request with an auth plugin, so requests is loaded already.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from requests.auth import AuthBase

from mlflow_sysmetrics.tracking.google_id_token_cache import IdTokens
from mlflow_sysmetrics.tracking.google_id_token_sources import fetch_id_token

NAME = "google-id-token"
AUDIENCE = "MLFLOW_TRACKING_AUDIENCE"

_PORTS = {"http": 80, "https": 443}
_id_tokens = IdTokens(fetch_id_token)  # of this process: MLflow makes an auth object for each request
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_id_tokens.after_fork)


class GoogleIdTokenAuthProvider:
    """Is the `mlflow.request_auth_provider` entry point.

    It has the methods of MLflow's `RequestAuthProvider`, the same in every MLflow 2 and 3 that has auth
    plugins, and does not inherit from it: looking at this package must not import MLflow.
    """

    def get_name(self) -> str:
        """Returns what MLFLOW_TRACKING_AUTH has to be."""
        return NAME

    def get_auth(self) -> AuthBase:
        """Returns what puts a token on a request. MLflow asks for every request anew."""
        return GoogleIdTokenAuth(_id_tokens)


class GoogleIdTokenAuth(AuthBase):  # type: ignore[misc]
    """Puts a Google ID token on a request, in place of whatever Authorization it had."""

    def __init__(self, id_tokens: IdTokens) -> None:
        self._id_tokens = id_tokens

    def __call__(self, request: Any) -> Any:  # noqa: ANN401 - requests has no types
        """Returns the request with a token.

        Raises:
            NoIdToken: there is none; says where it was looked for, and what to do.
        """
        audience = os.environ.get(AUDIENCE, "").strip() or origin(request.url)
        request.headers["Authorization"] = f"Bearer {self._id_tokens.token(audience)}"
        return request


def origin(url: str) -> str:
    """Returns the part of a URL that says which server: what Cloud Run takes as an audience.

    It is the request's and not that of MLflow's current tracking URI, which a client with a URI of its own
    does not go to: no server is shown a token that another one would take.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
