"""Where status files lie: a local directory, or whatever MLflow can write artifacts to."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow_sysmetrics.mlflow_api.artifact_target import get_from_store, put_into_store, remove_from_store
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.bounded_calls import BoundedWrites

# "dbfs:/folder" is one as well as "gs://bucket"; a letter and a colon are a drive of Windows.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class Target(Protocol):
    """Holds small files.

    Attributes:
        uri: where that is; may have secrets.
        shown: the same without them.
    """

    uri: str
    shown: str

    def write(self, name: str, text: str, *, last: bool) -> None:
        """Writes a file; raises whatever prevents it. `last`: the program ends after this one."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there; raises whatever prevents it."""

    def read(self, name: str) -> str:
        """Returns a file.

        Raises:
            OSError: it could not be read; FileNotFoundError where it is not there.
            UnicodeDecodeError: it is no text.
        """


class LocalDirectory:
    """Holds files in a directory, which is made when the first one is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = self.shown = str(path)

    def write(self, name: str, text: str, *, last: bool) -> None:  # noqa: ARG002 - a disk is always waited for
        """Puts a file in place at once: whoever reads meanwhile gets the old one or the new one."""
        self._path.mkdir(parents=True, exist_ok=True)
        # A name of its own for each writer, also of another node with the same process id. Not mkstemp, whose
        # files nobody else may read: the reader is a service.
        fresh = self._path / f".{name}.{secrets.token_hex(8)}"
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self._path / name)
        except BaseException:  # Ctrl-C too leaves no half-written file behind
            fresh.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except NotADirectoryError:  # the directory is a file, so nothing lies in it
            return

    def read(self, name: str) -> str:
        """Returns a file."""
        return (self._path / name).read_text(encoding="utf-8")


class ArtifactStore:
    """Holds files in an object store, through MLflow's artifact repositories.

    A store that hangs holds a write for ten seconds, the ones after it for one, and the last one for ten.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.shown = redacted(uri)
        self._writes = BoundedWrites(
            lambda name, text: put_into_store(uri, name, text) if text else remove_from_store(uri, name)
        )

    def write(self, name: str, text: str, *, last: bool) -> None:
        """Has a file written beside the program, and waits for it."""
        self._writes.write(name, text, last=last)

    def remove(self, name: str) -> None:
        """Has a file removed beside the program, and waits for it; a write that comes meanwhile wins."""
        self._writes.write(name, "")

    def read(self, name: str) -> str:
        """Returns a file; waits as long as the store's library does."""
        return get_from_store(self.uri, name)


def open_target(target: str | os.PathLike[str], *file_names: str) -> Target:
    """Returns what a target means.

    Args:
        target: a directory or a URI.
        file_names: where the target ends with one of these, the directory of that file is meant.

    Raises:
        ValueError: it is neither.
    """
    text = os.fspath(target) if isinstance(target, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{target!r} is neither a directory nor a URI")
    folder, name = split_target(text)
    if name in file_names:
        text = folder or "."
    if not _URI.match(text):
        return LocalDirectory(_absolute(Path(os.path.expanduser(text))))  # noqa: PTH111 - which may raise
    if not isinstance(target, str):
        # pathlib makes "gs:/bucket" of "gs://bucket", and a directory of that name would be a silent mistake.
        problem = f"{text!r} is a path made of a URI: pass the URI as a string"
        raise ValueError(problem)
    if text.lower().startswith("file:"):
        return LocalDirectory(Path(url2pathname(urlsplit(text).path)))
    return ArtifactStore(text.rstrip("/"))


def split_target(text: str) -> tuple[str, str]:
    """Returns the last part of a path or a URI, and what comes before it."""
    if not _URI.match(text):
        return os.path.split(text)
    folder, _, name = text.rpartition("/")
    return folder, name


def _absolute(path: Path) -> Path:
    """Returns the path as it is now: a training may change its directory."""
    try:
        return path.absolute()
    except OSError:  # the working directory was deleted
        return path
