"""Reads an answer, or the exception in its place, and says what it means."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from mlflow_sysmetrics.errors import (
    BatchTooLarge,
    DeliveryError,
    NotAllowed,
    RunDeleted,
    RunRefused,
    ServerUnreachable,
    SysMetricsError,
)
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault, NoIdToken
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.mlflow_api.tracking_uris import origin, redacted
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout

# FOLDED retry_after: When a server that is busy asks to be asked again.


def seconds_from(retry_after: str, now: datetime) -> float | None:
    """Returns the seconds that a Retry-After header means, which are given or lie before a date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):  # TypeError is Python 3.10's
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - now).total_seconds(), 0.0)


# FOLDED root_cause: What lies at the bottom of an exception: "Connection refused", not the layers above it.


def root_cause(error: BaseException) -> BaseException:
    """Returns what an exception was raised from, or while it was handled; itself where that is nothing."""
    root = error
    seen = {error}
    while (deeper := root.__cause__ or root.__context__) is not None and deeper not in seen:
        root = deeper
        seen.add(root)
    return root


# FOLDED answers: What the answer of a tracking server means for what was sent.

# Answers that no waiting can change. Any other one, and any that is not MLflow's own (a proxy's page with 404
# or 400), may pass.
_FINAL = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"})
_NOT_ALLOWED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"})
_NOT_ALLOWED_STATUS = frozenset({401, 403})
_TOO_LARGE_STATUS = 413
_BAD_REQUEST_STATUS = 400
_BAD_REQUEST = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
# MLflow: "can contain at most 1000 metrics", "must be at most 1000000 bytes"; Azure: "is over the size limit.
# FieldName=..., Limit=200, Size=699" (github.com/mlflow/mlflow/issues/11462), "is larger than the max metric
# size". Where it is one point that is at fault and not the number of them, halving finds that one.
_ABOUT_SIZE = re.compile(
    r"at most \d|size limit|(more|larger|greater|bigger|longer) than|too (large|many|big|long)|exceed|maximum"
    r"|limit=\d",
    re.IGNORECASE,
)
# Databases: "The run 7 must be in the 'active' state. Current state is deleted."; files: "The run 7 must be
# in 'active' lifecycle_stage."; the same of the experiment. No store says so of a run that it never had.
_ABOUT_DELETION = re.compile(r"must be in (?:an? |the )?'?active", re.IGNORECASE)


def fault(
    status: int | None, code: str | None, text: str, reason: str, retry_after: str | None = None
) -> DeliveryError:
    """Returns what to raise for an answer that is not a success.

    Args:
        status: of HTTP; None where the store was called directly.
        code: MLflow's name of the error; None where the answer was not MLflow's.
        text: the answer.
        reason: what to say of it, in one line.
        retry_after: the header of that name.
    """
    bad_request = status == _BAD_REQUEST_STATUS or code in _BAD_REQUEST
    # First: it quotes the names of metrics, which may be any words.
    if bad_request and complains_of_a_copy(text):
        return AlreadyThere(reason)
    if status == _TOO_LARGE_STATUS or (bad_request and _ABOUT_SIZE.search(text)):
        return BatchTooLarge(reason)
    if code in _FINAL:
        return (RunDeleted if _ABOUT_DELETION.search(text) else RunRefused)(reason)
    seconds = None if retry_after is None else seconds_from(retry_after, datetime.now(timezone.utc))
    if status in _NOT_ALLOWED_STATUS or code in _NOT_ALLOWED:
        return NotAllowed(reason, seconds)
    return ServerUnreachable(reason, seconds)


_LONGEST_REASON = 300
_OK = 200
_SERVER_ERROR = 500
_WAITS = frozenset({408, 425, 429})
_INVALID_HOST = "Invalid Host header"
_STATUS_CAUSES = {401: Cause.UNAUTHENTICATED, 403: Cause.FORBIDDEN, 407: Cause.UNAUTHENTICATED}
# MLflow's names of errors; any other one is told by the HTTP status, or may pass.
_CODES = {
    "RESOURCE_DOES_NOT_EXIST": Cause.MISSING,
    "RESOURCE_ALREADY_EXISTS": Cause.EXISTS,
    "INVALID_PARAMETER_VALUE": Cause.REFUSED,
    "INVALID_STATE": Cause.REFUSED,
    "BAD_REQUEST": Cause.REFUSED,
    "NOT_IMPLEMENTED": Cause.REFUSED,
    "ENDPOINT_NOT_FOUND": Cause.NOT_MLFLOW,
    "UNAUTHENTICATED": Cause.UNAUTHENTICATED,
    "CUSTOMER_UNAUTHORIZED": Cause.UNAUTHENTICATED,
    "PERMISSION_DENIED": Cause.FORBIDDEN,
}
# What exceptions say, by the libraries that raise them. The first that fits counts.
_SAYS = (
    (r"authentication failed for user|access denied for user|no pg_hba\.conf entry", Cause.UNAUTHENTICATED),
    (r"role \S+ (does not exist|is not permitted)|no password supplied", Cause.UNAUTHENTICATED),
    (r"databricks (credential )?configuration|default credentials", Cause.UNAUTHENTICATED),
    (r"out-of-date database schema|can't locate revision|upgrade your database", Cause.OLD_DATABASE),
    (r"database is locked|starting up|shutting down|too many (clients|connections)", Cause.DOWN),
    (r"database \S+ does not exist|unknown database|unable to open database file", Cause.BAD_DATABASE),
    (r"not a database|readonly database|malformed|permission denied|read-only file", Cause.BAD_DATABASE),
    (r"no module named|can't load plugin|requires .* to be installed", Cause.NO_DRIVER),
)
_BAD_URI_CLASSES = frozenset(
    {
        "InvalidURL",
        "InvalidSchema",
        "MissingSchema",
        "InvalidUrlException",
        "LocationParseError",
        "ArgumentError",
    }
    | {"UnsupportedModelRegistryStoreURIException", "UnicodeError", "InvalidProxyURL"}
)
_NO_CREDENTIALS_CLASSES = frozenset(
    # The last one is of MLflow 2.8 on Databricks.
    {"DefaultCredentialsError", "NoCredentialsError", "RefreshError", "InvalidConfigurationError"}
)


def fault_of_answer(
    status_code: int,
    text: str,
    headers: Mapping[str, str],
    tracking_uri: str = "",
    *,
    redirected_to: str | None = None,
) -> Fault | None:
    """Returns what is wrong with an answer; None where it is MLflow's and a success.

    Args:
        status_code: of HTTP.
        text: the body.
        headers: by name; one that ignores case, as of requests.
        tracking_uri: what must not appear in full.
        redirected_to: where the answer came from, if that is not what was asked.
    """
    answer = _object(text)
    code = answer.get("error_code") if answer is not None else None
    if status_code == _OK and answer is not None and code is None:
        return None
    said = str(answer.get("message") or "") if answer is not None else _text_of(text)
    reason = f"HTTP {status_code} {code or ''}".rstrip() + (f": {said}" if said else "")
    if redirected_to:
        reason += f" (redirected to {redirected_to})"
    after = headers.get("Retry-After")
    return Fault(
        _one_line(cleaned(reason, tracking_uri)),
        _cause_of_answer(status_code, code, text),
        status_code=status_code,
        retry_after=None if after is None else seconds_from(after, datetime.now(timezone.utc)),
    )


def fault_of_shape(text: str, tracking_uri: str = "") -> Fault:
    """Returns what is wrong with a success in JSON that is not what MLflow answers.

    Args:
        text: the body.
        tracking_uri: what must not appear in full.
    """
    reason = f"HTTP {_OK}, and not what MLflow answers: {text}"
    return Fault(_one_line(cleaned(reason, tracking_uri)), Cause.NOT_MLFLOW, status_code=_OK)


def fault_of_error(error: BaseException, tracking_uri: str = "", *, seconds: float = 0.0) -> Fault:
    """Returns what an exception means that came in place of an answer.

    Args:
        error: of MLflow, requests, a database driver, an operating system, or an auth plugin.
        tracking_uri: what must not appear in full.
        seconds: how long was waited for it.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, CallTimeout):
        return Fault(f"no answer within {seconds:g} s", Cause.DOWN)
    chain = list(_chain(error))
    code = next((found for one in chain if isinstance(found := getattr(one, "error_code", None), str)), None)
    said = str(error) if code in _CODES else _said(chain[-1])
    said += _where_else(chain, tracking_uri)
    without_token = next((one for one in chain if isinstance(one, NoIdToken)), None)
    if without_token is not None:
        said = without_token.reason
    return Fault(
        _one_line(cleaned(said, tracking_uri)),
        _cause_of_error(chain, code),
        remedy=None if without_token is None else without_token.remedy,
    )


def _where_else(chain: list[BaseException], tracking_uri: str) -> str:
    """Returns " (redirected to ...)" where the request that failed was not to the server that was asked."""
    asked = origin(tracking_uri)
    if asked is None or asked[0] not in {"http", "https"}:
        return ""
    urls = (getattr(getattr(one, "request", None), "url", None) for one in chain)  # as requests tells it
    at = next((url for url in urls if isinstance(url, str)), None)
    return "" if at is None or origin(at) in {None, asked} else f" (redirected to {redacted(at)})"


def _said(error: BaseException) -> str:
    """Returns "Connection refused" where the operating system says so, else the exception with its class."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _cause_of_answer(status_code: int, code: object, text: str) -> Cause:
    if _INVALID_HOST in text:
        return Cause.WRONG_HOST
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    if status_code in _STATUS_CAUSES:
        return _STATUS_CAUSES[status_code]
    if status_code in _WAITS or status_code >= _SERVER_ERROR:
        return Cause.DOWN
    return Cause.REFUSED if isinstance(code, str) else Cause.NOT_MLFLOW


def _cause_of_error(chain: list[BaseException], code: str | None) -> Cause:
    names = {type(one).__name__ for one in chain}
    text = " ".join(str(one) for one in chain)
    ends_early = any(isinstance(one, ssl.SSLEOFError | ssl.SSLZeroReturnError) for one in chain)
    if not ends_early and (any(isinstance(one, ssl.SSLError) for one in chain) or "TLS CA cert" in text):
        return Cause.TLS
    if any(isinstance(one, ImportError) for one in chain):
        return Cause.NO_DRIVER
    if names & _NO_CREDENTIALS_CLASSES or any(isinstance(one, SysMetricsError) for one in chain):
        return Cause.UNAUTHENTICATED  # ours is that of the plugin google-id-token
    if names & _BAD_URI_CLASSES:
        return Cause.BAD_URI
    found = next((cause for pattern, cause in _SAYS if re.search(pattern, text, re.IGNORECASE)), None)
    return found or _CODES.get(code or "", Cause.DOWN)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and all that led to it, down to the first one."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        # requests hands urllib3's exception on as an argument, and that one its own as `reason`.
        inner = next((one for one in at.args if isinstance(one, BaseException)), None)
        at = at.__cause__ or at.__context__ or inner or getattr(at, "reason", None)
        at = at if isinstance(at, BaseException) else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _text_of(body: str) -> str:
    """Returns the words of a page, without its tags."""
    page = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", body)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


# SQLite, PostgreSQL, MySQL and SQL Server, as SQLAlchemy passes it on. The table of the latest values has the
# same complaint when two nodes write a new key at once; that one passes.
_COPY = re.compile(
    r"(UNIQUE constraint|duplicate (key|entry)|PRIMARY KEY constraint).*?INSERT INTO \W{0,2}metrics\b",
    re.IGNORECASE | re.DOTALL,
)


class AlreadyThere(ServerUnreachable):
    """The server has refused a batch because a point of it is there already."""


def complains_of_a_copy(text: str) -> bool:
    """Tells whether an answer says that a point is there already."""
    return _COPY.search(text) is not None
