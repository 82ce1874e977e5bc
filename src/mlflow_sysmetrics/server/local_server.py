"""A tracking server on this machine, for the duration of a ``with`` block."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.runtime.local_paths import local_directory
from mlflow_sysmetrics.server.launch import LOG, RunningServer, ServerOptions, start_server


class LocalServer:
    """Runs `mlflow server` for the duration of a ``with`` block.

    It is ready when the block is entered: a run has been created on it and read back. Its output goes to a
    log, and it ends with the block, or with this process, even if that is killed. Nothing in this process is
    changed: point MLflow at the server with ``mlflow.set_tracking_uri(server.url)``, and another program with
    ``env={**os.environ, **server.environ}``. It can be entered again afterwards.

    Args:
        backend_store_uri: SQLAlchemy URI of the database; by default sqlite in the directory.
        directory: holds log, database, users and artifacts; created if it is missing. By default a temporary
            one, which is removed at the end.
        artifacts_destination: directory, or URI of an object store, from which it serves artifacts; by
            default in the directory.
        host: address to listen on; "0.0.0.0" for all networks.
        port: port to listen on; by default a free one, chosen at each start.
        workers: processes that serve requests.
        allowed_hosts: host names that clients may use, in addition to localhost; by default MLflow's
            choice, which is localhost and private addresses. MLflow before 3.5 ignores them.
        admin_password: enables users and passwords, and is the password of the user "admin".
        environ: additional variables for the server, such as those of an object store. It inherits all
            variables of this program except MLflow's, which say where this program logs to.
        start_timeout: longest wait until it is ready, in seconds.

    Raises:
        SettingsError: an argument is invalid.
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
            raise SettingsError(f"allowed_hosts must be a list such as ['mlflow'], got {allowed_hosts!r}")
        self._options = ServerOptions(
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
        self._directory = None if directory is None else local_directory("directory", directory)
        self._lock = threading.Lock()
        self._files: Path | None = None
        self._server: RunningServer | None = None
        self._owner = os.getpid()

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled or copied."""
        raise TypeError(
            "a LocalServer cannot be pickled or copied, as its processes belong to this one; pass its url "
            "and environ instead"
        )

    @property
    def url(self) -> str:
        """The tracking URI, without user and password.

        Raises:
            RuntimeError: the server is not running.
        """
        return self._running().address.url

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point a program's MLflow at it, with user and password if it asks for them."""
        address = self._running().address
        variables = {"MLFLOW_TRACKING_URI": address.url}
        if address.user is not None:
            variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"] = address.user
        return variables

    @property
    def pid(self) -> int:
        """Process id of the server's first process, which leads the process group of the others."""
        return self._running().process.pid or 0

    @property
    def log_path(self) -> Path:
        """The file that its output goes to."""
        self._running()
        return (self._files or Path()) / LOG

    def wait(self, seconds: float) -> int | None:
        """Waits for the server to end by itself, at most the given seconds.

        Returns:
            Its exit code; None while it runs.
        """
        return self._running().process.wait(seconds)

    def start(self) -> LocalServer:
        """Starts the server and returns once it is ready; a ``with`` block calls it, and `stop` at its end.

        Returns:
            Itself.

        Raises:
            ServerStartError: it does not start; says why, what to do, and how its log ends.
            SettingsError: the URI does not name a database, or the password is invalid.
            RuntimeError: it is already running.
        """
        with self._lock:
            if self._server is not None:
                raise RuntimeError(f"This LocalServer is already running, at {self._server.address.url}.")
            self._owner = os.getpid()
            self._files = self._directory or Path(tempfile.mkdtemp(prefix="mlflow-server-"))
            try:
                self._files.mkdir(parents=True, exist_ok=True)
                self._server = start_server(self._options, self._files)
            except OSError as error:
                self._remove_files()
                where = f"{error.filename or self._files}: {error.strerror or error}"
                raise ServerStartError(
                    f"The files of the server cannot be created: {where}. Choose another directory."
                ) from error
            except BaseException:  # Ctrl-C, too
                self._remove_files()
                raise
        return self

    def stop(self) -> None:
        """Ends the server with all its processes; does nothing if it is not running."""
        if os.getpid() != self._owner:
            return  # a forked child has a copy of this object, but the server belongs to its parent
        with self._lock:
            running, self._server = self._server, None
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

    def _running(self) -> RunningServer:
        running = self._server
        if running is None:
            raise RuntimeError("This LocalServer is not running; use it in a with block, or call start().")
        return running

    def _remove_files(self) -> None:
        if self._directory is None and self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
