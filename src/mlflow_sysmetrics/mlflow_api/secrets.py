"""Masks secrets in every text that leaves the package.

A secret is known by its value (from the environment, a URI, or a header that was sent) or by the word before
it. `cleaned` removes both kinds.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from html import escape
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from mlflow_sysmetrics.mlflow_api import fluent_state
from mlflow_sysmetrics.mlflow_api.tracking_uris import is_database_uri, without_secrets, without_users
from mlflow_sysmetrics.runtime.native import Lock

# A server, a proxy or a plugin may quote their values in an answer.
_SECRET_VARIABLES = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "DATABRICKS_TOKEN",
    "DATABRICKS_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZUREML_RUN_TOKEN",
    "PGPASSWORD",
    "MYSQL_PWD",
)
# A URI in one of these may hold a user and a password.
_URI_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_BACKEND_STORE_URI",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)
_CUT = "***"
_SHORTEST = 4  # masking shorter values, which only tests have, would mask words
# A user name is masked if it may be a token. A short one with a password is a word, such as "token".
_SHORTEST_USER = 12
_SENDING_MODULES = "mlflow.utils."  #: where MLflow sends requests and raises for what came back
_SHORTEST_HEADER = 8
# requests and MLflow send these with every request, and a message may be about them.
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
_MOST_REMEMBERED = 64  # some tokens are new for each request
_SECRET_PARAMETER = re.compile(r"(?i)pass|pwd|token|secret|key|sig|cred|auth")
# The query of a URL, which may be signed; what follows a word that announces a secret; a JSON Web Token.
_QUERY = re.compile(r"(\w://[^\s?'\"<>]*)\?[^\s'\"<>)]*")
_ANNOUNCED = re.compile(
    r"(?i)\b((?:proxy-)?authorization|bearer|basic|token|password|passwd|secret|api[-_]?key|cookie)"
    r"(['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+)?"
    # After a blank only what looks like a secret: "basic authentication" does not.
    r"|\s+(?=[\w\-+/.~]{8,})(?=\S*(?:\d|=|(?-i:[a-z][A-Z]))))[\w\-+/.~=%]+"
)
_ENDS = re.compile(r"[/?#@:\\\[\]]+")  # where a parser of URIs may end a part of them
_JSON_WEB_TOKEN = re.compile(r"\beyJ[\w\-]{8,}\.[\w\-]+(?:\.[\w\-]*)?")

_sent: dict[str, None] = {}  # as an ordered set
_sent_lock = Lock()


def remember_credentials(user: object, password: object, token: object) -> None:
    """Masks these values from now on. MLflow sends them, wherever it found them."""
    _remember(password, token)
    if _is_secret_user(user, password):
        _remember(user)


def remember_environment(environ: Mapping[str, str]) -> None:
    """Masks the secrets in another process's variables from now on, as those of this one always are."""
    _remember(*_of_environment(environ))


def remember_headers(sent: Mapping[str, str]) -> None:
    """Masks the values of a request's headers from now on; plugins add some of them."""
    for name, value in sent.items():
        lower, text = str(name).lower(), _text(value)
        if lower in {"authorization", "proxy-authorization"}:
            scheme, _, rest = text.partition(" ")
            _remember(rest or text)
            if scheme.lower() == "basic":
                user, _, password = _decoded(rest).partition(":")
                remember_credentials(user, password, None)
        elif not is_open_header(lower) and len(text) >= _SHORTEST_HEADER:
            _remember(text)


def is_open_header(name: str) -> bool:
    """Returns whether a header of a request holds no secret: requests, or MLflow itself, sends it."""
    return name.lower() in _OPEN_HEADERS or name.lower().startswith(_MLFLOW_HEADERS)


def remember_requests(error: BaseException) -> None:
    """Masks the headers of the requests behind an exception from now on.

    Exceptions of requests have their request. MLflow's have not, so the response is taken from the frame that
    raised them. Plugins are asked which headers they add.
    """
    for one in chain_of(error):
        responses = [one, getattr(one, "response", None)]
        trace = one.__traceback__
        while trace is not None:
            # Not of other frames: before Python 3.13, asking a frame for its locals makes it keep them, the
            # exception among them, until the garbage collector finds the cycle.
            if str(trace.tb_frame.f_globals.get("__name__")).startswith(_SENDING_MODULES):
                responses.append(trace.tb_frame.f_locals.get("response"))
            trace = trace.tb_next
        for response in responses:
            headers = getattr(getattr(response, "request", None), "headers", None)
            if isinstance(headers, Mapping):
                remember_headers(headers)
    remember_headers(fluent_state.headers_of_plugins())


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and everything that led to it, down to the first one."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        # requests passes urllib3's exception as an argument, and urllib3 keeps its own as `reason`.
        inner = next((one for one in at.args if isinstance(one, BaseException)), None)
        at = at.__cause__ or at.__context__ or inner or getattr(at, "reason", None)
        at = at if isinstance(at, BaseException) else None


def cleaned(text: str, tracking_uri: str = "") -> str:
    """Returns a text without credentials of URIs, headers and the environment. Never raises.

    Within an ``except`` clause it also masks what the requests behind that exception have sent.

    Args:
        text: any text.
        tracking_uri: one whose credentials the text may quote, beside that of the environment.
    """
    handled = sys.exc_info()[1]
    if handled is not None:
        remember_requests(handled)
    if tracking_uri:  # first: afterwards it may not be recognised
        text = without_secrets(text, tracking_uri)
    for secret in _known(tracking_uri):
        text = text.replace(secret, _CUT)
    text = without_users(text)
    text = _QUERY.sub(r"\1", text)
    text = _JSON_WEB_TOKEN.sub(_CUT, text)
    return _ANNOUNCED.sub(rf"\1\2{_CUT}", text)


def _known(tracking_uri: str) -> list[str]:
    """Returns the secrets that are known by their value in each form that a text may quote, longest first."""
    secrets = {*_of_environment(os.environ), *_of_uri(tracking_uri)}
    with _sent_lock:
        secrets.update(_sent)
    forms = {form for secret in secrets for form in _forms(secret)}
    return sorted((one for one in forms if len(one) >= _SHORTEST), key=len, reverse=True)


def _of_environment(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields what is secret in variables."""
    yield from (environ.get(name, "") for name in _SECRET_VARIABLES)
    yield from _of_account(*(environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD")))
    for name in _URI_VARIABLES:
        yield from _of_uri(environ.get(name, ""))
    # AccountName=...;AccountKey=...: an error may quote one of its parts.
    for part in environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"):
        name, _, value = part.partition("=")
        if _SECRET_PARAMETER.search(name):
            yield value


def _of_account(user: str, password: str) -> Iterator[str]:
    """Yields what is secret in basic authentication, its header included."""
    yield password
    if _is_secret_user(user, password):
        yield user
    if user and password:
        yield base64.b64encode(f"{user}:{password}".encode("utf-8", "replace")).decode()


def _of_uri(uri: str) -> Iterator[str]:
    """Yields what is secret in a URI: user, password, and parameters of its query that are named like one."""
    with suppress(ValueError):  # not a URI that urllib.parse reads
        parts = urlsplit(uri)
        user, password = parts.username or "", parts.password or ""
        yield password
        if not is_database_uri(uri):  # its user is only a name
            yield from _of_account(unquote(user), unquote(password))
        for name, value in (*parse_qsl(parts.query), *parse_qsl(parts.fragment)):
            if _SECRET_PARAMETER.search(name):
                yield value
    # A raw "/", "?", "#" or "@" in the password ends the host for urllib.parse. An error may quote a part.
    start = re.match(r"(?:[\w+.\-]+:)?/+", uri)
    raw = re.match(r"[^/?#:]*:(.*)@", uri if start is None else uri[start.end() :], re.DOTALL)
    if raw is not None:
        yield raw[1]
        yield from (part for part in _ENDS.split(raw[1]) if not part.isdecimal())


@lru_cache(_MOST_REMEMBERED)  # an outage cleans a message per attempt, of the same few secrets
def _forms(secret: str) -> frozenset[str]:
    """Returns a secret as it is written in headers, JSON, Python's repr, HTML and URIs."""
    bare = secret.strip()  # a token that was read from a file ends in a newline
    texts = {bare, unquote(bare)}
    texts |= {text.encode("utf-8", "replace").decode("latin-1") for text in texts}  # how HTTP reads a header
    written = {secret}
    for text in texts:
        written |= {text, repr(text)[1:-1], repr(text.encode("utf-8", "replace"))[2:-1]}
        written.update(_in_json(text))
        written.update(_in_html(text))
        written.update(_in_uri(text))
    return frozenset(written)


def _in_json(text: str) -> Iterator[str]:
    """Yields a text as JSON writes it: PHP escapes the slash, and Java writes code points in capitals."""
    for ascii_only in (True, False):
        written = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield written
        yield written.replace("/", r"\/")
        yield re.sub(r"\\u[0-9a-f]{4}", lambda code: f"\\u{code[0][2:].upper()}", written)


def _in_html(text: str) -> Iterator[str]:
    """Yields a text as HTML writes it: Python, JavaScript and Jinja write the quotes in different ways."""
    for quotes in (("&quot;", "&#x27;"), ("&#34;", "&#39;"), ('"', "'")):
        written = escape(text, quote=False)
        yield written.replace('"', quotes[0]).replace("'", quotes[1])


def _in_uri(text: str) -> Iterator[str]:
    """Yields a text as a URI writes it: its path, its query or a form, in capitals or not."""
    for encode, safe in ((quote, "/"), (quote, ""), (quote_plus, "")):
        written = encode(text, safe, errors="replace")
        yield written
        yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), written)


def _is_secret_user(user: object, password: object) -> bool:
    return isinstance(user, str) and (not password or len(user) >= _SHORTEST_USER)


def _remember(*values: object) -> None:
    with _sent_lock:
        for value in values:
            if isinstance(value, str) and len(value) >= _SHORTEST:
                _sent.pop(value, None)
                _sent[value] = None
        while len(_sent) > _MOST_REMEMBERED:
            del _sent[next(iter(_sent))]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode("utf-8", "replace")
    except ValueError:
        return ""
