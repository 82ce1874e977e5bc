"""What must never be shown, cut out of what is."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from mlflow_sysmetrics.tracking_uris import without_secrets

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
# The query of a URL, which may be signed; what follows a word that announces a secret; a JSON Web Token.
_QUERY = re.compile(r"(\w://[^\s?'\"<>]*)\?[^\s'\"<>)]*")
_ANNOUNCED = re.compile(
    r"(?i)\b((?:proxy-)?authorization|bearer|basic|token|password|passwd|secret|api[-_]?key|cookie)"
    r"(['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+)?"
    # After a blank only what looks like a secret: "basic authentication" does not.
    r"|\s+(?=[\w\-+/.~]{8,})(?=\S*(?:\d|=|(?-i:[a-z][A-Z]))))[\w\-+/.~=%]+"
)
_JSON_WEB_TOKEN = re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]+(?:\.[\w\-]*)?")


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
        password = urlsplit(tracking_uri).password or ""
    except ValueError:  # no URI at all
        password = ""
    found |= {password, unquote(password)}
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)
