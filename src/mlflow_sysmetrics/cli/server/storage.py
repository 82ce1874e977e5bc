"""Whether there is room for what a tracking server keeps, and whether it may write there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mlflow_sysmetrics.cli.findings import Finding, Mark
from mlflow_sysmetrics.cli.server.options import AskedServer

_GIGABYTE = 10**9
# 100 MB of metrics a day from one node at MLflow's default interval: a tenth of a gigabyte is gone tomorrow.
_TOO_LITTLE, _LITTLE = 1, 10
_URI = "MLFLOW_ARTIFACTS_DESTINATION"
_DEFAULT = "./mlartifacts"
_PACKAGES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}


def findings(asked: AskedServer) -> Iterator[Finding]:
    """Yields where artifacts go, whether they can, and how much room there is."""
    destination = asked.artifacts_destination
    if not destination:
        text = f"not set: {_DEFAULT} where the server happens to be started, which a container loses"
        yield Finding("artifacts", Mark.WRONG, text, f"export {_URI}=/a/mounted/volume")
    elif "://" in destination and not destination.startswith("file:"):
        yield _object_store(destination)
    else:
        directory = Path(destination.removeprefix("file://"))
        yield _directory(directory)
        yield _room("room for artifacts", directory)
    store = asked.backend_store_uri or ""
    if store.startswith("sqlite:///"):
        yield _room("room for the database", Path(store.removeprefix("sqlite:///").partition("?")[0]).parent)


def _object_store(destination: str) -> Finding:
    scheme = destination.partition("://")[0]
    module = _PACKAGES.get(scheme)
    if module is not None and not _is_there(module):
        text = f"{destination}: the package {module} for it is not installed"
        return Finding("artifacts", Mark.WRONG, text, f"pip install {module.replace('.', '-')}")
    return Finding("artifacts", Mark.PLAIN, f"{destination}: an object store, which is not written to here")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that a dotted name is in
        return False


def _directory(directory: Path) -> Finding:
    there = existing(directory)
    try:
        with tempfile.TemporaryFile(dir=there):  # has no name, so it is gone whatever happens
            pass
    except OSError as error:
        text = f"{directory} cannot be written to by this user: {error.strerror}"
        return Finding("artifacts", Mark.WRONG, text, f"chown it to user {_user()}, or choose another")
    if not directory.is_absolute():
        text = f"{directory} is writable, and depends on the directory in which the server is started"
        return Finding("artifacts", Mark.NOTE, text, f"export {_URI}={directory.absolute()}")
    made = "" if there == directory else ", and made at the first artifact"
    return Finding("artifacts", Mark.GOOD, f"{directory} is writable{made}")


def _room(name: str, directory: Path) -> Finding:
    free = shutil.disk_usage(existing(directory)).free
    text = f"{free / _GIGABYTE:,.1f} GB free"
    more = {"free_bytes": free}
    if free < _TOO_LITTLE * _GIGABYTE:
        return Finding(name, Mark.WRONG, text, "make room, or choose a larger volume", more)
    if free < _LITTLE * _GIGABYTE:
        return Finding(name, Mark.NOTE, text, "mlflow gc frees what deleted runs hold", more)
    return Finding(name, Mark.GOOD, text, None, more)


def existing(path: Path) -> Path:
    """Returns the path, or the nearest directory above it that exists."""
    absolute = path.absolute()
    # Unlike Path's, this `exists` never raises, also not for a name that is too long.
    return next(one for one in (absolute, *absolute.parents) if os.path.exists(one))  # noqa: PTH110


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "of the server"
