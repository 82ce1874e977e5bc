"""Whether a tracking server can write its artifacts, and whether the disks have room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.inspected_server import InspectedServer

_GIGABYTE = 10**9
# One node at MLflow's default interval writes 100 MB of metrics a day.
_TOO_LITTLE, _LITTLE = 1, 10
_URI = "MLFLOW_ARTIFACTS_DESTINATION"
_DEFAULT = "./mlartifacts"
_PACKAGES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}


def findings(inspected: InspectedServer) -> Iterator[Finding]:
    """Yields where artifacts go, whether that is writable, and how much room is left."""
    destination = inspected.artifacts_destination
    if not destination:
        text = f"not set: {_DEFAULT} in the directory the server is started in, which a container loses"
        yield Finding("artifacts", Mark.WRONG, text, f"export {_URI}=/a/mounted/volume")
    elif "://" in destination and not destination.startswith("file:"):
        yield _object_store(destination)
    else:
        directory = Path(destination.removeprefix("file://"))
        yield _directory(directory)
        yield _room("room for artifacts", directory)
    store = inspected.backend_store_uri or ""
    if store.startswith("sqlite:///"):
        yield _room("room for the database", Path(store.removeprefix("sqlite:///").partition("?")[0]).parent)


def _object_store(destination: str) -> Finding:
    scheme = destination.partition("://")[0]
    module = _PACKAGES.get(scheme)
    if module is not None and not _is_there(module):
        text = f"{destination}: needs the package {module}, which is not installed"
        return Finding("artifacts", Mark.WRONG, text, f"pip install {module.replace('.', '-')}")
    return Finding("artifacts", Mark.PLAIN, f"{destination}: an object store; writing to it is not tested")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is missing
        return False


def _directory(directory: Path) -> Finding:
    there = existing(directory)
    try:
        with tempfile.TemporaryFile(dir=there):  # unnamed, so it disappears whatever happens
            pass
    except OSError as error:
        text = f"this user cannot write to {directory}: {error.strerror}"
        return Finding("artifacts", Mark.WRONG, text, f"chown it to user {_user()}, or use another one")
    if not directory.is_absolute():
        text = f"{directory} is writable, but relative to the directory the server is started in"
        return Finding("artifacts", Mark.NOTE, text, f"export {_URI}={directory.absolute()}")
    created = "" if there == directory else ", and created with the first artifact"
    return Finding("artifacts", Mark.GOOD, f"{directory} is writable{created}")


def _room(name: str, directory: Path) -> Finding:
    free = shutil.disk_usage(existing(directory)).free
    text = f"{free / _GIGABYTE:,.1f} GB free"
    more = {"free_bytes": free}
    if free < _TOO_LITTLE * _GIGABYTE:
        return Finding(name, Mark.WRONG, text, "free some space, or use a larger volume", more)
    if free < _LITTLE * _GIGABYTE:
        return Finding(name, Mark.NOTE, text, "mlflow gc frees the space of deleted runs", more)
    return Finding(name, Mark.GOOD, text, None, more)


def existing(path: Path) -> Path:
    """Returns the path, or the nearest directory above it that exists."""
    absolute = path.absolute()
    # Unlike Path.exists, os.path.exists never raises, not even for a name that is too long.
    return next(one for one in (absolute, *absolute.parents) if os.path.exists(one))


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "of the server"
