"""Stores that are files: MLflow makes one that is missing, and then says that it never had the run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from mlflow_sysmetrics.errors import ServerUnreachable
from mlflow_sysmetrics.tracking_uris import lasting


def check_store(tracking_uri: str) -> None:
    """Checks that a store is there, if it is a file or a directory.

    A disk that is not mounted now may be so later: points for it wait.

    Raises:
        ServerUnreachable: it does not exist.
    """
    path = store_path(tracking_uri)
    if path is not None and not path.exists():
        raise ServerUnreachable(f"{path} does not exist")


def store_path(tracking_uri: str) -> Path | None:
    """Returns the file or directory that a tracking URI names; None where it names a server."""
    uri = lasting(tracking_uri)
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return Path(uri) if Path(uri).is_absolute() else None
    if scheme.partition("+")[0] == "sqlite":
        return None if ":memory:" in rest else Path(rest.removeprefix("/"))
    return Path(unquote(rest)) if scheme == "file" and rest.startswith("/") else None
