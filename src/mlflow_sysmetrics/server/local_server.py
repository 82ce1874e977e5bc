"""A tracking server on this machine, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.launch import LOG, Launched, Plan, launched


class LocalServer:
    """Runs `mlflow server` for the time of a ``with`` block.

    It is up when the block is entered: a run has been made on it and read back. Its output goes to a log,
    and it ends with the block, or with this process, whichever way that ends. Nothing of this process is
    changed: point MLflow at it with ``mlflow.set_tracking_uri(server.url)``, and another program with
    ``env={**os.environ, **server.environ}``. It can be entered again after its end.

    Args:
        backend_store_uri: SQLAlchemy's URI of the database; by default sqlite in the directory.
        directory: of log, database, users and artifacts, which is made if there is none; by default a
            temporary one, which is removed at the end.
        artifacts_destination: directory, or URI of an object store, from which it serves artifacts; by
            default in the directory.
        host: address to listen on; "0.0.0.0" for every network.
        port: to listen on; by default one that is free, another one each time.
        workers: processes that answer.
        allowed_hosts: names that clients may call it by, beside localhost; by default MLflow's choice,
            which is localhost and private addresses. MLflow before 3.5 does not look at them.
        admin_password: has it ask for users and passwords, and is that of the user "admin".
        environ: more variables for the server, such as those of an object store. Of this program's own
            variables it gets all but MLflow's, which say where this program logs to.
        start_timeout: longest wait in seconds until it answers.

    Raises:
        SettingsError: an argument makes no sense.
    """

    def __init__(
        self,
        backend_store_uri: str | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        artifacts_destination: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        workers: int = 1,
        allowed_hosts: Sequence[str] = (),
        admin_password: str | None = None,
        environ: Mapping[str, str] | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        if isinstance(allowed_hosts, str) or not isinstance(allowed_hosts, Iterable):
            raise SettingsError(f"allowed_hosts is {allowed_hosts!r}; it must be a list such as ['mlflow']")
        self._plan = Plan(
            backend_store_uri=backend_store_uri,
            artifacts_destination=None if artifacts_destination is None else os.fspath(artifacts_destination),
            host=host,
            port=port,
            workers=workers,
            allowed_hosts=tuple(allowed_hosts),
            admin_password=admin_password,
            environ=dict(environ or {}),
            start_timeout=start_timeout,
        )
        self._directory = None if directory is None else Path(directory).absolute()
        self._lock = threading.Lock()
        self._files: Path | None = None
        self._launched: Launched | None = None
        self._owner = os.getpid()

    @property
    def url(self) -> str:
        """The tracking URI, without user and password.

        Raises:
            RuntimeError: the server is not running.
        """
        return self._running().door.url

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point a program's MLflow at it, with user and password where it wants them."""
        door = self._running().door
        found = {"MLFLOW_TRACKING_URI": door.url}
        if door.user is not None:
            found["MLFLOW_TRACKING_USERNAME"], found["MLFLOW_TRACKING_PASSWORD"] = door.user
        return found

    @property
    def pid(self) -> int:
        """Of the server's first process, which leads a process group with the others."""
        return self._running().process.pid or 0

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        self._running()
        return (self._files or Path()) / LOG

    def wait(self, seconds: float) -> int | None:
        """Waits for the server to end by itself, but no longer than this.

        Returns:
            Its exit code; None while it runs.
        """
        return self._running().process.wait(seconds)

    def start(self) -> LocalServer:
        """Starts the server and returns once it answers; a ``with`` block does this, and `stop` at its end.

        Returns:
            Itself.

        Raises:
            ServerStartError: it does not come up; says why, what to do, and how its log ends.
            SettingsError: the URI names no database, or the password is too short.
            RuntimeError: it is running already.
        """
        with self._lock:
            if self._launched is not None:
                raise RuntimeError(f"This LocalServer is running already, at {self._launched.door.url}.")
            self._owner = os.getpid()
            self._files = self._directory or Path(tempfile.mkdtemp(prefix="mlflow-server-"))
            try:
                self._files.mkdir(parents=True, exist_ok=True)
                self._launched = launched(self._plan, self._files)
            except OSError as error:
                self._remove_files()
                raise ServerStartError(f"The files of the server cannot be made: {error}.") from error
            except BaseException:  # Ctrl-C, too
                self._remove_files()
                raise
        return self

    def stop(self) -> None:
        """Ends the server with all its processes; does nothing where none is running."""
        if os.getpid() != self._owner:
            return  # a forked child has a copy of this, and the server is its parent's
        with self._lock:
            running, self._launched = self._launched, None
            if running is not None:
                try:
                    running.process.stop()
                finally:  # also after a second Ctrl-C
                    self._remove_files()

    def __enter__(self) -> LocalServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Launched:
        running = self._launched
        if running is None:
            raise RuntimeError("This LocalServer is not running; use it in a with block, or call start().")
        return running

    def _remove_files(self) -> None:
        if self._directory is None and self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
