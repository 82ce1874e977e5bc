"""The table of outcomes: what an answer of a tracking server, or an exception in its place, means.

Delivery, preflight, HPO, registry and command line all read it. Where an outcome is ambiguous the table picks
the cause that loses no points: only MLflow's own name of an error (`error_code`) proves that a run is gone. A
status code alone proves little, since a proxy answers with 400 and 404 too.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, TypeVar

from mlflow_sysmetrics.errors import shortened
from mlflow_sysmetrics.mlflow_api.bounded_answers import words_of
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault, NoIdToken
from mlflow_sysmetrics.mlflow_api.secrets import chain_of, cleaned, remember_requests
from mlflow_sysmetrics.mlflow_api.tracking_uris import origin, redacted
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout

T = TypeVar("T")

_OK = 200
_BAD_REQUEST = 400
_TOO_LARGE = 413
_SERVER_ERROR = 500
_BUSY = frozenset({408, 425, 429})
_STATUSES = {401: Cause.UNAUTHENTICATED, 403: Cause.FORBIDDEN, 407: Cause.PROXY}

# MLflow's names of errors. These decide whatever the status is.
_CODES = {
    "RESOURCE_DOES_NOT_EXIST": Cause.MISSING,
    "RESOURCE_ALREADY_EXISTS": Cause.EXISTS,
    "ALREADY_EXISTS": Cause.EXISTS,
    "INVALID_PARAMETER_VALUE": Cause.REFUSED,
    "INVALID_STATE": Cause.REFUSED,
    "UNAUTHENTICATED": Cause.UNAUTHENTICATED,
    "CUSTOMER_UNAUTHORIZED": Cause.UNAUTHENTICATED,
    "PERMISSION_DENIED": Cause.FORBIDDEN,
}
# These are vague: MLflow reports most errors of its database as BAD_REQUEST. A refusal by status comes first.
_VAGUE_CODES = {
    "BAD_REQUEST": Cause.FAILED,
    "NOT_IMPLEMENTED": Cause.FAILED,
    "FEATURE_DISABLED": Cause.FAILED,
    "ENDPOINT_NOT_FOUND": Cause.NOT_MLFLOW,
}
# A server answers so if it does not have a call, or no longer has it.
_LACKS_CALL = frozenset({"ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"})
_MAY_COMPLAIN_OF_SIZE = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
# What an answer means that does not say what became of the request: MLflow never answers an error with HTTP
# 200, so a gateway has; and after a redirection that changed the request, the answer is to another one.
_INCONCLUSIVE = frozenset(
    {Cause.UNAUTHENTICATED, Cause.FORBIDDEN, Cause.PROXY, Cause.WRONG_HOST, Cause.DOWN, Cause.FAILED}
)

_AIRPLAY = "AirTunes"
_AIRPLAY_REMEDY = (
    "macOS's AirPlay Receiver answers at this port, not MLflow. Start the server on another port (mlflow "
    "server --port 5001) and use that in the tracking URI, or switch AirPlay Receiver off in System Settings."
)
_INVALID_HOST = "Invalid Host header"
# MLflow: "can contain at most 1000 metrics", "must be at most 1000000 bytes"; Azure: "is over the size limit.
# FieldName=..., Limit=200, Size=699" (github.com/mlflow/mlflow/issues/11462), "is larger than the max metric
# size". If one point causes the complaint and not their number, halving the batch finds that point.
_ABOUT_SIZE = re.compile(
    r"at most \d|size limit|(more|larger|greater|bigger|longer) than|too (large|many|big|long)|exceed|maximum"
    r"|limit=\d",
    re.IGNORECASE,
)
# Databases: "The run 7 must be in the 'active' state. Current state is deleted."; files: "The run 7 must be
# in 'active' lifecycle_stage."; the same for experiments. No store says this of a run that it never had.
_ABOUT_DELETION = re.compile(r"must be in (?:an? |the )?'?active", re.IGNORECASE)
# SQLite, PostgreSQL, MySQL and SQL Server, as SQLAlchemy passes it on. The table of the latest values raises
# the same complaint when two nodes write a new key at once; that one passes.
_ABOUT_STORED_POINT = re.compile(
    r"(UNIQUE constraint|duplicate (key|entry)|PRIMARY KEY constraint).*?INSERT INTO \W{0,2}metrics\b",
    re.IGNORECASE | re.DOTALL,
)

# PostgreSQL, SQLite, MySQL and SQL Server about a value that they cannot hold. MLflow passes it on as
# INTERNAL_ERROR or BAD_REQUEST, with the statement behind it.
_ABOUT_VALUE = re.compile(
    r"\bDataError\b|out of range|too large to convert|arithmetic overflow|too long for|incorrect \w+ value"
    r"|would be truncated|cannot contain NUL|invalid byte sequence|can't encode|surrogates not allowed",
    re.IGNORECASE,
)
_FAILED_HERE = (
    "API request to "  #: MLflow's client about a request that got no answer, also as INTERNAL_ERROR
)
_STATEMENT = "[SQL"  #: what follows quotes names of metrics, which may be any words

# What exceptions say, by the libraries that raise them. The first match counts.
_SAYS = (
    (r"tunnel connection failed: 407|proxy authentication required", Cause.PROXY),
    (r"tunnel connection failed: 40[0-6]", Cause.FORBIDDEN),  # a proxy that does not let this host through
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
        "UnsupportedModelRegistryStoreURIException",
        "UnicodeError",
        "InvalidProxyURL",
    }
)
_NO_CREDENTIALS_CLASSES = frozenset(
    # MLflow 2.8 raises the last one on Databricks.
    {"DefaultCredentialsError", "NoCredentialsError", "RefreshError", "InvalidConfigurationError"}
)

_INTERNAL = "INTERNAL_ERROR"
_ABOUT_ARGUMENTS = (TypeError, ValueError, OverflowError, AttributeError, LookupError, RecursionError)

_SEARCHED = 2000  # characters of an answer that are searched for a complaint
# Characters of an answer that are cleaned and shown: markup and secrets are found with regular expressions.
_LONGEST_PAGE = 50_000
_LONGEST_REASON = 300


def cause_of(status: int | None, code: str | None, text: str) -> Cause:  # noqa: PLR0911 - one for each row
    """Returns the cause behind an answer that is an error. The rows are in order; the first match counts.

    Args:
        status: HTTP status; None for an exception of a store that MLflow opens itself.
        code: MLflow's name of the error; None if the answer is not MLflow's.
        text: the answer, or the text of the exception.
    """
    if status == _OK:
        cause = cause_of(_BAD_REQUEST, code, text)
        return cause if cause in _INCONCLUSIVE else Cause.NOT_MLFLOW
    text = text[:_SEARCHED]
    bad_request = status == _BAD_REQUEST or code in _MAY_COMPLAIN_OF_SIZE
    if code is None and _INVALID_HOST in text:
        return Cause.WRONG_HOST
    # Before the next row: the statement that it quotes holds names of metrics, which may be any words.
    if bad_request and _ABOUT_STORED_POINT.search(text):
        return Cause.POINT_EXISTS
    if status == _TOO_LARGE or (bad_request and _ABOUT_SIZE.search(text)):
        return Cause.TOO_LARGE
    about_value = code is not None and not text.startswith(_FAILED_HERE)
    if about_value and _ABOUT_VALUE.search(text.partition(_STATEMENT)[0]):
        return Cause.REFUSED
    if code in _CODES:
        refused = _CODES[code] in {Cause.MISSING, Cause.REFUSED}
        return Cause.DELETED if refused and _ABOUT_DELETION.search(text) else _CODES[code]
    if status in _STATUSES:
        return _STATUSES[status]
    if code in _VAGUE_CODES:
        return _VAGUE_CODES[code]
    if status is None or status in _BUSY or status >= _SERVER_ERROR:
        return Cause.DOWN
    return Cause.NOT_MLFLOW if code is None else Cause.FAILED


def fault_of_answer(
    status_code: int,
    text: str,
    headers: Mapping[str, str],
    tracking_uri: str = "",
    *,
    redirected_to: str | None = None,
    is_to_request: bool = True,
) -> Fault | None:
    """Returns what is wrong with an answer; None for a JSON object with HTTP 200 and without an error code.

    Args:
        status_code: HTTP status.
        text: the body.
        headers: headers by name; the mapping should ignore case, as that of requests does.
        tracking_uri: masked in the text.
        redirected_to: the address that answered, if it is not the one that was asked.
        is_to_request: whether the answered request had the method and path that were asked for. A redirected
            POST may arrive as a GET.
    """
    answer = _object(text)
    found = answer.get("error_code") if answer is not None else None
    code = found if isinstance(found, str) else None
    if status_code == _OK and answer is not None and found is None and is_to_request:
        return None
    cause = cause_of(status_code, code, text)
    if not is_to_request and cause not in _INCONCLUSIVE:
        cause = Cause.NOT_MLFLOW
    said = str(answer.get("message") or "") if answer is not None else words_of(text[:_LONGEST_PAGE])
    reason = f"HTTP {status_code} {found or ''}".rstrip() + (f": {said}" if said else "")
    if redirected_to:
        reason += f" (redirected to {redirected_to})"
    remedy = None
    if not is_to_request and redirected_to is not None:
        remedy = _write_the_target(redirected_to)
    if code is None and _AIRPLAY in str(headers.get("Server") or ""):
        cause, remedy = Cause.NOT_MLFLOW, _AIRPLAY_REMEDY
    after = headers.get("Retry-After")
    return Fault(
        _one_line(cleaned(reason, tracking_uri)),
        cause,
        status_code=status_code,
        error_code=code,
        retry_after=None if after is None else seconds_from(after, datetime.now(timezone.utc)),
        remedy=remedy,
        is_internal=status_code == _SERVER_ERROR,
    )


def _write_the_target(redirected_to: str) -> str | None:
    """Returns which tracking URI to set instead of one that is redirected; None if that is unknown."""
    base, api, _ = redirected_to.partition("/api/2.0/")
    if not api:
        return None
    return (
        f"Set the tracking URI to {redacted(base)}, to which this one redirects: a redirected POST arrives "
        "as a GET, so nothing can be written through the redirection."
    )


def read_answer(text: str, read: Callable[[Any], T], tracking_uri: str = "") -> T:
    """Returns what a function reads from a success of MLflow.

    Args:
        text: the body.
        read: takes the JSON; raises KeyError, TypeError, AttributeError or ValueError for another shape.
        tracking_uri: masked in the text.

    Raises:
        Fault: the JSON does not have the shape of MLflow's answer to this request.
    """
    with suppress(KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError):
        return read(json.loads(text))
    # Cleaned before it is cut to one line: half a secret is not recognised.
    reason = f"HTTP {_OK}, but not MLflow's answer: {text[:_LONGEST_PAGE]}"
    raise Fault(_one_line(cleaned(reason, tracking_uri)), Cause.NOT_MLFLOW, status_code=_OK)


def nothing(answer: Any) -> None:
    """Reads the empty object, which is MLflow's answer to a request that returns nothing, such as log-batch.

    Raises:
        ValueError: the answer is anything else.
    """
    if answer != {}:
        raise ValueError("not an empty object")


def fault_of_error(error: BaseException, tracking_uri: str = "", *, seconds: float = 0.0) -> Fault:
    """Returns the fault that an exception, raised in place of an answer, stands for.

    Args:
        error: raised by MLflow, requests, a database driver, the operating system, or an auth plugin.
        tracking_uri: masked in the text.
        seconds: how long the caller waited.

    Raises:
        Exception: what a signal handler of the program has raised.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, Exception):
        from mlflow_sysmetrics.interruptions import reraise_interruption  # rarely needed

        reraise_interruption(error)
    if isinstance(error, CallTimeout):
        return Fault(f"no answer within {float(f'{seconds:.3g}'):g} s", Cause.DOWN)
    chain = list(chain_of(error))
    remember_requests(error)
    source = next((one for one in chain if isinstance(getattr(one, "error_code", None), str)), None)
    code = None if source is None else str(source.error_code)  # type: ignore[attr-defined]
    cause = _cause_of_error(chain, code, str(source))
    message = str(error) if code in _CODES or code in _VAGUE_CODES else _description(chain[-1])
    message += _redirection(chain, tracking_uri)
    without_token = next((one for one in chain if isinstance(one, NoIdToken)), None)
    if without_token is not None:
        message = without_token.reason
    # A plugin's exception around MLflow's may be about another request than ours, so it proves nothing.
    decided = source is error and cause is cause_of(None, code, str(source)) and cause is not Cause.DOWN
    return Fault(
        _one_line(cleaned(message, tracking_uri)),
        cause,
        error_code=code if decided else None,
        is_internal=source is error and code == _INTERNAL and cause is Cause.DOWN,
        is_local=_is_local(chain),
        remedy=None if without_token is None else without_token.remedy,
    )


def cause_by_code(error: BaseException) -> Cause | None:
    """Returns the cause that MLflow's name of an error stands for; None without such a name.

    For requests about one object, such as a run or an alias. The message is ignored, since it quotes the name
    of the object, which may contain any words.
    """
    code = getattr(error, "error_code", None)
    return cause_of(None, code, "") if isinstance(code, str) else None


def is_not_found(error: BaseException) -> bool:
    """Returns whether MLflow says that the object asked for does not exist.

    A malformed id and a missing alias are invalid parameters to MLflow; anything else is a missing resource.
    """
    return cause_by_code(error) in {Cause.MISSING, Cause.REFUSED}


def lacks_call(error: BaseException) -> bool:
    """Returns whether a store says that it does not have the call, for any arguments."""
    return isinstance(error, NotImplementedError) or getattr(error, "error_code", None) in _LACKS_CALL


def seconds_from(retry_after: str, now: datetime) -> float | None:
    """Returns the seconds that a Retry-After header asks for, a number or a date; None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
        return seconds if isfinite(seconds) else None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):  # Python 3.10 raises TypeError
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - now).total_seconds(), 0.0)


def _cause_of_error(chain: list[BaseException], code: str | None, text: str) -> Cause:
    names = {type(one).__name__ for one in chain}
    texts = " ".join(str(one) for one in chain)
    ends_early = any(isinstance(one, ssl.SSLEOFError | ssl.SSLZeroReturnError) for one in chain)
    if not ends_early and (any(isinstance(one, ssl.SSLError) for one in chain) or "TLS CA cert" in texts):
        return Cause.TLS
    if any(isinstance(one, ImportError) for one in chain):
        return Cause.NO_DRIVER
    if names & _NO_CREDENTIALS_CLASSES or any(isinstance(one, NoIdToken) for one in chain):
        return Cause.UNAUTHENTICATED
    if names & _BAD_URI_CLASSES:
        return Cause.BAD_URI
    by_code = cause_of(None, code, text)
    if by_code not in {Cause.DOWN, Cause.FAILED}:
        return by_code
    return next((cause for pattern, cause in _SAYS if re.search(pattern, texts, re.IGNORECASE)), by_code)


def _is_local(chain: list[BaseException]) -> bool:
    """Returns whether an error was raised here, about what was to be sent, before any server was asked.

    All errors of requests, of sockets and of files are OSErrors, and those of databases are SQLAlchemy's.
    """
    return all(isinstance(one, _ABOUT_ARGUMENTS) and not isinstance(one, OSError) for one in chain)


def _redirection(chain: list[BaseException], tracking_uri: str) -> str:
    """Returns " (redirected to ...)" if the failed request went to another server than the one asked."""
    expected = origin(tracking_uri)
    if expected is None or expected[0] not in {"http", "https"}:
        return ""
    urls = (getattr(getattr(one, "request", None), "url", None) for one in chain)  # set by requests
    at = next((url for url in urls if isinstance(url, str)), None)
    return "" if at is None or origin(at) in {None, expected} else f" (redirected to {redacted(at)})"


def _description(error: BaseException) -> str:
    """Returns the operating system's message ("Connection refused"), else the exception with its class."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _object(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _one_line(text: str) -> str:
    """Returns a text in one line; what a server sends must not control the terminal that shows it."""
    words = " ".join(text.split())
    return shortened(
        "".join(one if one.isprintable() else ascii(one)[1:-1] for one in words), _LONGEST_REASON
    )
