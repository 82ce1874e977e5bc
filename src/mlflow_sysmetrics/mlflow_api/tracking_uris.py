"""Forms of a tracking URI: for messages and for the journal, without secrets; absolute, with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

_PORTS = {"http": 80, "https": 443}
_HTTP = _PORTS.keys()
_SQLITE_URI = "file:"
# A host with a port, as opposed to a user with a password: a port is a number.
_HOST = re.compile(r"([\w.~%-]+|\[[\w.:%-]+\])?(:\d{0,5})?")
# SQLAlchemy's rule for the user in the URL of a database: a password may hold anything but "@".
_DATABASE = re.compile(r"(postgresql|mysql|mariadb|mssql|oracle)\b")
_DATABASE_USER = re.compile(r"[^:/]*(:[^@]*)?@")
_ENDS_OF_AUTHORITY = re.compile(r"(?=[/?#])")
# A user and a password in a URI whose "://" is missing or incomplete.
_USER_WITHOUT_SCHEME = re.compile(r"^((?:\w[\w+.\-]*:/?)?)[^/\\@]*:[^/\\]*@")
_SCHEME = re.compile(r"\w[\w+.\-]*:/(?!/)|(?:dbfs|databricks|file|https?):")
_BUCKET = re.compile(r"[\w.\-]+")
# In the path of a file: one character before a colon and a slash is the drive of Windows.
_USER_IN_PATH = re.compile(r"(?:[^/\\:]{2,}:|[^/\\:]:(?![/\\])|/:)[^@]*@")
# In any text: up to the last "@" before a blank, a quote of JSON or a bracket of HTML.
_USER_IN_TEXT = re.compile(r"://[^\s\"<>]*@")


def redacted(tracking_uri: str) -> str:
    """Returns the URI for messages: without user, password, query and fragment.

    Never raises, and removes too much rather than too little: a password may hold any character, so
    everything up to the last "@" is removed. Only the path of a file may hold one.
    """
    scheme, colon, rest = _parts(tracking_uri)
    if not colon:
        return _without_user(tracking_uri)
    if not (_is_file(scheme) and rest.startswith("/")):
        rest = rest.rpartition("@")[2]
    elif _USER_IN_PATH.search(rest):  # three slashes by mistake
        rest = f"/{rest.rpartition('@')[2]}"
    authority, tail = _divided(rest)
    return f"{scheme}{colon}{authority}{_path_of(tail, is_name=_is_sqlite(scheme) and not authority)}"


def anchored(tracking_uri: str) -> str:
    """Returns the URI with an absolute path and with its secrets, so that it is the same in any directory.

    ``sqlite:///runs.db`` and ``./mlruns`` depend on the working directory. Never raises.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    if not colon and tracking_uri.startswith("file:"):
        return _absolute_uri(unquote(re.split("[?#]", tracking_uri[len("file:") :])[0]))
    if not colon:
        return _absolute(tracking_uri) if _is_path(tracking_uri) else tracking_uri
    if _is_sqlite(scheme) and rest.startswith("/"):
        file, mark, options = rest[1:].partition("?")
        prefix = _SQLITE_URI if file.startswith(_SQLITE_URI) else ""
        name = file[len(prefix) :]
        if name and not name.startswith(":memory:"):  # a database in memory has no path
            # A path with four slashes is absolute already; on Windows, so is one with a drive.
            return f"{scheme}:///{prefix}{_absolute(name)}{mark}{options}"
    return tracking_uri


def lasting(tracking_uri: str) -> str:
    """Returns the URI for the journal: absolute and without secrets, usable by another process anywhere.

    Never raises, and never names a host that MLflow would not have contacted: a URI that HTTP cannot use as
    it stands, such as one with a raw "/" in its password, is reduced to its scheme. So is one of another
    scheme in which a password may continue after the first "/". Of a server and a database, the host before
    that "/" is the one that has created the run, and what follows is its path, even with an "@".
    """
    absolute = anchored(tracking_uri)
    scheme, colon, rest = _parts(absolute)
    if not scheme or not colon:
        return redacted(absolute)
    if _DATABASE.match(scheme):
        match = _DATABASE_USER.match(rest)
        rest = rest if match is None else rest[match.end() :]
    if _is_sqlite(scheme) and "uri=true" in rest:  # then the name is one of SQLite's own URIs
        rest = rest.replace(_SQLITE_URI, "", 1)
    authority, tail = _divided(rest)
    host = authority.rpartition("@")[2]
    if scheme.lower() in _HTTP:
        unusable = not host or not _HOST.fullmatch(host) or ("@" in tail and not _is_host(host))
        if unusable or "\\" in authority:  # urllib3 ends the host at a backslash, urllib.parse does not
            return f"{scheme}://"
    elif "@" in tail and not _DATABASE.match(scheme):
        is_path = _is_file(scheme) and not authority and not _USER_IN_PATH.search(tail)
        if not (is_path or _BUCKET.fullmatch(authority)):
            return f"{scheme}://"
    return f"{scheme}{colon}{host}{_path_of(tail, is_name=_is_sqlite(scheme) and not authority)}"


def origin(tracking_uri: str) -> tuple[str, str, int | None] | None:
    """Returns scheme, host and port of a server; None if the URI names no host."""
    scheme, _, rest = lasting(tracking_uri).partition("://")
    host, colon, port = _divided(rest)[0].rpartition(":")
    if not colon or port.endswith("]"):
        host, port = _divided(rest)[0], ""
    scheme = scheme.lower()
    if not host or (port and not port.isdecimal()):
        return None
    return scheme, host.lower(), int(port) if port else _PORTS.get(scheme)


def without_secrets(text: str, tracking_uri: str) -> str:
    """Returns a text without users and passwords of URIs, and with the tracking URI redacted.

    `secrets.cleaned` removes more; this knows only what a URI looks like.
    """
    shown = redacted(tracking_uri)
    for form in (tracking_uri, repr(tracking_uri)[1:-1]):
        text = text.replace(form, shown)
    return without_users(text)


def without_users(text: str) -> str:
    """Returns a text in which no URI has a user and a password."""
    return _USER_IN_TEXT.sub("://", text)


def is_database_uri(uri: str) -> bool:
    """Returns whether a URI is that of a database server."""
    return _DATABASE.match(uri) is not None


def with_secrets(lasting_uri: str, known: Iterable[str]) -> str:
    """Returns the known URI, with its credentials, that a `lasting` URI stands for; else the latter."""
    return next((anchored(one) for one in known if lasting(one) == lasting_uri), lasting_uri)


def _parts(uri: str) -> tuple[str, str, str]:
    """Returns scheme, "://" and the rest. In ``//user:password@host`` only the scheme is missing."""
    if uri.startswith("//"):
        return "", "//", uri[len("//") :]
    scheme, colon, rest = uri.partition("://")
    return scheme, colon, rest


def _divided(rest: str) -> tuple[str, str]:
    """Returns the part with user, host and port, and the rest, split as urllib.parse and requests do."""
    authority, *tail = _ENDS_OF_AUTHORITY.split(rest, maxsplit=1)
    return authority, "".join(tail)


def _is_host(authority: str) -> bool:
    """Returns whether this is a host, with a port if there is a colon: ``user:`` before a "/" is not."""
    return _HOST.fullmatch(authority) is not None and not authority.endswith(":")


def _without_user(uri: str) -> str:
    """Returns a URI that has no "://", such as ``user:password@host``, without user and password."""
    is_path = uri.startswith((".", "/", "~", "\\"))
    if "@" not in uri or (is_path and not _USER_IN_PATH.search(uri)):
        return uri
    before, _, after = uri.rpartition("@")
    scheme = _SCHEME.match(before)
    if ":" not in before or (_is_path(uri) and not is_path and not _USER_IN_PATH.search(uri)):
        return uri
    return f"{scheme[0] if scheme else ''}{after}"


def _is_path(uri: str) -> bool:
    """Returns whether this is a path. "databricks" and "databricks:profile" are words, known to MLflow."""
    starts = uri.startswith((".", "/", "~"))
    return starts or (("/" in uri or "\\" in uri) and not _USER_WITHOUT_SCHEME.match(uri))


def _path_of(tail: str, *, is_name: bool) -> str:
    """Returns the path, without query and fragment; the name of a file may hold a "#"."""
    path = tail.partition("?")[0]
    return path if is_name else path.partition("#")[0]


def _is_file(scheme: str) -> bool:
    """Returns whether URIs of a scheme hold the path of a file."""
    return _is_sqlite(scheme) or scheme.lower() == "file"


def _is_sqlite(scheme: str) -> bool:
    return scheme.partition("+")[0] == "sqlite"


def _absolute_uri(path: str) -> str:
    absolute = _absolute(path)
    return Path(absolute).as_uri() if Path(absolute).is_absolute() else f"file:{path}"


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links, which may hang
    except OSError:  # the working directory was deleted
        return path


def is_trusted(tracking_uri: str, chosen: Iterable[str]) -> bool:
    """Returns whether a server may see credentials: it is one of the chosen servers, whatever the path.

    MLflow sends credentials to any server that it is pointed at, because the user chose that server. A
    journal may name another one: an experiment of last year, a host that has new owners.

    A URI without a host (a file, "databricks" and its profiles) brings its own credentials, or none.

    Args:
        tracking_uri: from a journal.
        chosen: tracking URIs that the user or this program has named.
    """
    server = origin(tracking_uri)
    if server is None:
        return not tracking_uri.lower().startswith("http")  # then the host cannot be read
    return server[0].startswith("databricks") or any(origin(one) == server for one in chosen)
