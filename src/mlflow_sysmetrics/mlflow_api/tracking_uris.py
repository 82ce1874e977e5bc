"""Tracking URIs as they are shown and written down: without secrets, and independent of the directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

_PORTS = {"http": 80, "https": 443}
_HTTP = _PORTS.keys()
_SQLITE_URI = "file:"
# What can be a host and a port, and not a user and a password: what stands where a port does is a number.
_HOST = re.compile(r"([\w.~%-]+|\[[\w.:%-]+\])?(:\d{0,5})?")
# How SQLAlchemy finds the user in the URL of a database: a password may hold anything but "@".
_DATABASE = re.compile(r"(postgresql|mysql|mariadb|mssql|oracle)\b")
_DATABASE_USER = re.compile(r"[^:/]*(:[^@]*)?@")
_ENDS_OF_AUTHORITY = re.compile(r"(?=[/?#])")


def redacted(tracking_uri: str) -> str:
    """Returns the URI without user, password, query and fragment, for messages.

    Never raises, and rather cuts too much: where a user and a password may go on behind the first "/", all
    of it up to the last "@" goes.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    authority, tail = _divided(rest)
    if "@" in tail and (_DATABASE.match(scheme) or not _HOST.fullmatch(authority)):
        authority, tail = _divided(rest.rpartition("@")[2])
    return f"{scheme}{colon}{authority.rpartition('@')[2]}{_path_of(scheme, tail)}"


def anchored(tracking_uri: str) -> str:
    """Returns the URI as it means the same in another directory, with its secrets: its path is absolute.

    ``sqlite:///runs.db`` and ``./mlruns`` depend on the working directory. Never raises.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    if not colon and tracking_uri.startswith("file:"):
        return _absolute_uri(unquote(re.split("[?#]", tracking_uri[len("file:") :])[0]))
    if not colon:
        # A path, unless it is a word that MLflow or a plugin knows ("databricks", "databricks:profile").
        is_path = tracking_uri.startswith((".", "/", "~")) or "/" in tracking_uri or "\\" in tracking_uri
        return _absolute(tracking_uri) if is_path else tracking_uri
    if _is_sqlite(scheme) and rest.startswith("/"):
        file, mark, options = rest[1:].partition("?")
        prefix = _SQLITE_URI if file.startswith(_SQLITE_URI) else ""
        name = file[len(prefix) :]
        if name and not name.startswith(":memory:"):  # in memory there is nothing to go back to
            # Four slashes are absolute already; of Windows, a drive.
            return f"{scheme}:///{prefix}{_absolute(name)}{mark}{options}"
    return tracking_uri


def lasting(tracking_uri: str) -> str:
    """Returns the URI as another process in another directory can use it: absolute, and without secrets.

    Never raises, and never names a host that MLflow would not have spoken to: what HTTP cannot use as it
    stands, such as a password with a raw "/" in it, leaves the scheme alone.
    """
    scheme, colon, rest = anchored(tracking_uri).partition("://")
    if not colon:
        return scheme
    if _DATABASE.match(scheme):
        found = _DATABASE_USER.match(rest)
        rest = rest if found is None else rest[found.end() :]
    if _is_sqlite(scheme) and "uri=true" in rest:  # which says that the name is one of SQLite's own URIs
        rest = rest.replace(_SQLITE_URI, "", 1)
    authority, tail = _divided(rest)
    host = authority.rpartition("@")[2]
    if scheme.lower() in _HTTP and (not _HOST.fullmatch(host) or "\\" in authority):
        return f"{scheme}://"  # urllib3 ends the host at a backslash, urllib.parse does not
    return f"{scheme}://{host}{_path_of(scheme, tail)}"


def origin(tracking_uri: str) -> tuple[str, str, int | None] | None:
    """Returns scheme, host and port of a server; None where the URI names no host."""
    scheme, _, rest = lasting(tracking_uri).partition("://")
    host, colon, port = _divided(rest)[0].rpartition(":")
    if not colon or port.endswith("]"):
        host, port = _divided(rest)[0], ""
    scheme = scheme.lower()
    if not host or (port and not port.isdecimal()):
        return None
    return scheme, host.lower(), int(port) if port else _PORTS.get(scheme)


def without_secrets(text: str, tracking_uri: str) -> str:
    """Returns a message with every user and password of a URI cut out, and the tracking URI redacted."""
    return re.sub(r"://[^\s/]*@", "://", text.replace(tracking_uri, redacted(tracking_uri)))


def with_secrets(lasting_uri: str, known: Iterable[str]) -> str:
    """Returns the known URI that means the same server as a lasting one, which has no credentials."""
    return next((anchored(one) for one in known if lasting(one) == lasting_uri), lasting_uri)


def _divided(rest: str) -> tuple[str, str]:
    """Returns what may hold user, host and port, and what comes after it, as urllib.parse and requests do."""
    authority, *tail = _ENDS_OF_AUTHORITY.split(rest, maxsplit=1)
    return authority, "".join(tail)


def _path_of(scheme: str, tail: str) -> str:
    path = tail.partition("?")[0]
    return path if _is_sqlite(scheme) else path.partition("#")[0]  # a file's name may hold a "#"


def _is_sqlite(scheme: str) -> bool:
    return scheme.partition("+")[0] == "sqlite"


def _absolute_uri(path: str) -> str:
    absolute = _absolute(path)
    return Path(absolute).as_uri() if Path(absolute).is_absolute() else f"file:{path}"


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)  # noqa: PTH100 - unlike Path.resolve it follows no links, which may hang
    except OSError:  # the working directory was deleted
        return path
