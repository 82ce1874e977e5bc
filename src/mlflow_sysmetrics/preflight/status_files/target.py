"""Where status files go: a local directory, an object store, or the artifacts of a run."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow_sysmetrics.mlflow_api.artifact_target import (
    get_from_store,
    load_artifact_library,
    put_into_run,
    put_into_store,
    remove_from_store,
)
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, PendingCall

# "dbfs:/folder" is a URI as well as "gs://bucket"; one letter and a colon are a drive of Windows.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# An object store on another continent takes a second or two, and its library's first retry fits in as well.
# If the store is gone, libraries retry for minutes; a program that only reports its status must not.
_TIMEOUT_SECONDS = 10.0
# While an earlier write hangs, the next one most likely will, too.
_TIMEOUT_WHILE_HANGING_SECONDS = 1.0


class WritableTarget(Protocol):
    """Takes small files.

    Attributes:
        uri: the target's path or URI; may contain secrets.
        shown: the target in messages, without secrets.
    """

    uri: str
    shown: str

    def write(self, name: str, text: str, *, last: bool) -> None:
        """Writes a file; raises whatever prevents it. `last`: the program ends after this one."""


class Target(WritableTarget, Protocol):
    """Holds small files."""

    def remove(self, name: str) -> None:
        """Removes a file if it exists; raises whatever prevents it."""

    def read(self, name: str) -> str:
        """Returns the text of a file.

        Raises:
            OSError: it could not be read; FileNotFoundError if it does not exist.
            UnicodeDecodeError: it is not text.
        """


class LocalDirectory:
    """Holds files in a directory, which is created with the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = self.shown = str(path)

    def write(self, name: str, text: str, *, last: bool) -> None:  # noqa: ARG002 - a disk is always waited for
        """Replaces a file atomically: a concurrent reader gets the old content or the new."""
        self._path.mkdir(parents=True, exist_ok=True)
        # Unique for each writer, also on another node with the same process id. Not mkstemp, whose files only
        # this user may read: the reader is a service.
        fresh = self._path / f".{name}.{secrets.token_hex(8)}"
        try:
            with fresh.open("x", encoding="utf-8") as file:  # follows no link
                file.write(text)
            fresh.replace(self._path / name)
        except BaseException:  # Ctrl-C, too, must not leave a half-written file behind
            fresh.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except NotADirectoryError:  # the "directory" is a file, so there is nothing to remove
            return

    def read(self, name: str) -> str:
        """Returns the text of a file."""
        return (self._path / name).read_text(encoding="utf-8")


class BoundedWrites:
    """Writes named texts one after the other in a thread, and waits for each only a given time.

    A text that is still queued when the next of its name arrives is skipped: only the newest counts. The
    thread lives as long as there is something to write.

    Args:
        write: writes a text under a name; may hang.
        timeout: longest wait for a write, in seconds.
        timeout_while_hanging: longest wait while an earlier write has not ended, in seconds.
    """

    def __init__(
        self,
        write: Callable[[str, str], None],
        *,
        timeout: float = _TIMEOUT_SECONDS,
        timeout_while_hanging: float = _TIMEOUT_WHILE_HANGING_SECONDS,
    ) -> None:
        self._write = write
        self._timeout = timeout
        self._timeout_while_hanging = timeout_while_hanging
        self._lock = threading.Lock()  # never held during a write
        self._newest: dict[str, str] = {}
        self._writing: PendingCall[None] | None = None

    def write(self, name: str, text: str, *, last: bool = False) -> None:
        """Queues a text and returns when it is written.

        Args:
            name: name of the file.
            text: its content.
            last: the program ends after this one, so it gets the full timeout.

        Raises:
            TimeoutError: it was not written in time; the thread keeps trying.
            RuntimeError: the interpreter is shutting down.
            Exception: what the write raised.
        """
        with self._lock:
            self._newest[name] = text
            hanging = self._writing is not None
            if self._writing is None:
                self._writing = PendingCall(self._write_all, "sysmetrics-status-files")
            writing = self._writing
        seconds = self._timeout_while_hanging if hanging and not last else self._timeout
        try:
            writing.result(seconds)
        except CallTimeout:
            raise TimeoutError(f"no answer within {seconds:g} s") from None

    def _write_all(self) -> None:
        """Writes what is queued until nothing is; raises what the last write raised."""
        failure: BaseException | None = None
        while True:
            with self._lock:
                if not self._newest:
                    self._writing = None
                    break
                name, text = self._newest.popitem()
            failure = None
            try:
                self._write(name, text)
            except BaseException as error:  # the store's library's; raised in `write`
                failure = error
        if failure is not None:
            raise failure


class ArtifactStore:
    """Holds files in an object store, through MLflow's artifact repositories.

    A store that hangs delays the first write by ten seconds, the ones after it by one, the last one by ten.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.shown = redacted(uri)
        load_artifact_library(uri)  # not part of the time that a write may take
        self._writes = BoundedWrites(
            lambda name, text: put_into_store(uri, name, text) if text else remove_from_store(uri, name)
        )

    def write(self, name: str, text: str, *, last: bool) -> None:
        """Writes a file in a thread, and waits for it."""
        self._writes.write(name, text, last=last)

    def remove(self, name: str) -> None:
        """Removes a file in a thread, and waits for it; a write that is queued meanwhile wins."""
        self._writes.write(name, "")

    def read(self, name: str) -> str:
        """Returns the text of a file; waits as long as the store's library does."""
        return get_from_store(self.uri, name)


class RunArtifacts:
    """Writes files as artifacts of a run; delays like `ArtifactStore` if the store hangs.

    Args:
        tracking_uri: the run's server.
        run_id: id of the run.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        self.uri = tracking_uri
        self.shown = f"the artifacts of run {run_id}"
        self._writes = BoundedWrites(lambda name, text: put_into_run(tracking_uri, run_id, name, text))

    def write(self, name: str, text: str, *, last: bool) -> None:
        """Writes a file in a thread, and waits for it."""
        self._writes.write(name, text, last=last)


def open_target(target: str | os.PathLike[str], *file_names: str) -> Target:
    """Returns the target that a path or a URI stands for.

    Args:
        target: a directory or a URI.
        file_names: if the target ends with one of these, its directory is meant.

    Raises:
        ValueError: it is neither.
    """
    text = os.fspath(target) if isinstance(target, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"it must be a directory or a URI, got {target!r}")
    folder, name = split_target(text)
    if name in file_names:
        text = folder or "."
    if not _URI.match(text):
        return LocalDirectory(_absolute(Path(os.path.expanduser(text))))  # noqa: PTH111 - Path.expanduser may raise
    if not isinstance(target, str):
        # pathlib turns "gs://bucket" into "gs:/bucket", and a directory of that name would go unnoticed.
        problem = f"{text!r} is a path made from a URI: pass the URI as a string"
        raise ValueError(problem)
    if text.lower().startswith("file:"):
        return LocalDirectory(Path(url2pathname(urlsplit(text).path)))
    return ArtifactStore(text.rstrip("/"))


def split_target(text: str) -> tuple[str, str]:
    """Returns the part of a path or a URI before its last name, and that name."""
    if not _URI.match(text):
        return os.path.split(text)
    folder, _, name = text.rpartition("/")
    return folder, name


def _absolute(path: Path) -> Path:
    """Returns the path as an absolute one: the training may change its working directory."""
    try:
        return path.absolute()
    except OSError:  # the working directory was deleted
        return path
