"""Tracking URIs as they are shown and written down: without secrets, and independent of the directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable


def redacted(tracking_uri: str) -> str:
    """Returns the URI without user, password and query, for messages.

    Never raises, and rather cuts too much: a password may hold what it should not.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    if not rest.startswith("/"):  # there is an authority, which may have a user and a password
        rest = rest.rpartition("@")[2]
    return f"{scheme}{colon}{rest}".partition("?")[0]


def lasting(tracking_uri: str) -> str:
    """Returns the URI as another process in another directory can use it: absolute, and without secrets.

    ``sqlite:///runs.db`` and ``./mlruns`` depend on the working directory. Never raises.
    """
    scheme, colon, rest = tracking_uri.partition("://")
    if not colon and tracking_uri.startswith("file:"):
        return f"file://{_absolute(tracking_uri[len('file:') :])}"
    if not colon:
        # A path, unless it is a word that MLflow or a plugin knows ("databricks", "databricks:profile").
        is_path = tracking_uri.startswith((".", "/", "~")) or "/" in tracking_uri or "\\" in tracking_uri
        return _absolute(tracking_uri) if is_path else tracking_uri
    if scheme.partition("+")[0] == "sqlite":
        path, _, _ = rest.partition("?")
        # Four slashes are absolute already; of Windows, a drive. In memory there is nothing to go back to.
        if path.startswith("/") and path[1:] and not path.startswith("/:memory:"):
            return f"{scheme}:///{_absolute(path[1:])}"
        return f"{scheme}://{path}"
    return redacted(tracking_uri)


def without_secrets(text: str, tracking_uri: str) -> str:
    """Returns a message with every user and password of a URI cut out, and the tracking URI redacted."""
    return re.sub(r"://[^\s/]*@", "://", text.replace(tracking_uri, redacted(tracking_uri)))


def with_secrets(lasting_uri: str, known: Iterable[str]) -> str:
    """Returns the known URI that means the same server as a lasting one, which has no credentials."""
    return next((one for one in known if lasting(one) == lasting_uri), lasting_uri)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)  # noqa: PTH100 - unlike Path.resolve it follows no links, which may hang
    except OSError:  # the working directory was deleted
        return path
