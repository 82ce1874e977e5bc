"""What must never be shown, cut out of what is."""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from mlflow_sysmetrics.mlflow_api.tracking_uris import without_secrets

# Whose values a server, a proxy or a plugin may quote in an answer.
_SECRET_VARIABLES = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "DATABRICKS_TOKEN",
    "DATABRICKS_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZUREML_RUN_TOKEN",
)
_CUT = "***"
_SHORTEST = 4  # a shorter "secret" is a test's, and cutting it would cut words
# A user name is cut where it may be a token. One that is short and has a password is a word, such as "token".
_SHORTEST_USER = 12
_SHORTEST_HEADER = 8
# What requests and MLflow send with every request, and a message may be about.
_OPEN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
_MLFLOW_HEADERS = "x-mlflow-"
_MOST_SENT = 64  # some tokens are new each time
# The query of a URL, which may be signed; what follows a word that announces a secret; a JSON Web Token.
_QUERY = re.compile(r"(\w://[^\s?'\"<>]*)\?[^\s'\"<>)]*")
_ANNOUNCED = re.compile(
    r"(?i)\b((?:proxy-)?authorization|bearer|basic|token|password|passwd|secret|api[-_]?key|cookie)"
    r"(['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+)?"
    # After a blank only what looks like a secret: "basic authentication" does not.
    r"|\s+(?=[\w\-+/.~]{8,})(?=\S*(?:\d|=|(?-i:[a-z][A-Z]))))[\w\-+/.~=%]+"
)
_JSON_WEB_TOKEN = re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]+(?:\.[\w\-]*)?")


_sent: dict[str, None] = {}  # as an ordered set
_sent_lock = threading.Lock()


def remember_credentials(user: object, password: object, token: object) -> None:
    """Keeps the values that MLflow sends from now on, wherever it has found them, out of every text."""
    _remember(password, token)
    if _is_secret_user(user, password):
        _remember(user)


def remember_headers(sent: Mapping[str, str]) -> None:
    """Keeps the values of a request's headers, which plugins give too, out of every text."""
    for name, value in sent.items():
        lower, text = name.lower(), _text(value)
        if lower in {"authorization", "proxy-authorization"}:
            scheme, _, rest = text.partition(" ")
            _remember(rest or text)
            if scheme.lower() == "basic":
                user, _, password = _decoded(rest).partition(":")
                remember_credentials(user, password, None)
        elif (
            lower not in _OPEN_HEADERS
            and not lower.startswith(_MLFLOW_HEADERS)
            and len(text) >= _SHORTEST_HEADER
        ):
            _remember(text)


def cleaned(text: str, tracking_uri: str = "") -> str:
    """Returns a text without credentials: of URIs, of headers, of the environment. Never raises."""
    for secret in _known(tracking_uri):
        text = text.replace(secret, _CUT)
    if tracking_uri:
        text = without_secrets(text, tracking_uri)
    text = re.sub(r"://[^\s/@]*@", "://", text)
    text = _QUERY.sub(r"\1", text)
    text = _JSON_WEB_TOKEN.sub(_CUT, text)
    return _ANNOUNCED.sub(rf"\1\2{_CUT}", text)


def _known(tracking_uri: str) -> list[str]:
    """Returns the secrets that we know by their value, longest first."""
    found = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
    try:
        parts = urlsplit(tracking_uri)
        user, password = parts.username or "", parts.password or ""
    except ValueError:  # no URI at all
        user = password = ""
    found |= {password, unquote(password)}
    if tracking_uri.startswith("http") and _is_secret_user(user, password):  # a database's is only a name
        found |= {user, unquote(user)}
    with _sent_lock:
        found |= _sent.keys()
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)


def _is_secret_user(user: object, password: object) -> bool:
    return isinstance(user, str) and (not password or len(user) >= _SHORTEST_USER)


def _remember(*values: object) -> None:
    with _sent_lock:
        for value in values:
            if isinstance(value, str) and len(value) >= _SHORTEST:
                _sent.pop(value, None)
                _sent[value] = None
        while len(_sent) > _MOST_SENT:
            del _sent[next(iter(_sent))]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode("utf-8", "replace")
    except ValueError:
        return ""
