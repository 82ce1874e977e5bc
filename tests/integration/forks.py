"""Python programs forked from a process that has imported the slow libraries.

Importing MLflow takes two seconds of CPU time, torch as much again; a fork takes milliseconds. A forked program
starts without threads, with its own environment, directory, arguments and streams, runs as ``__main__`` and ends
the way an interpreter ends (for libraries see `fork_ends`). MLflow's context providers, ours among them, are built in the program, under its
environment, as a first ``import mlflow`` does. What a fork cannot show, the start of an interpreter and a first
import, is for tests that start an interpreter.

As a program this file is the process that imports, once for all workers of a test run. For each worker it forks
one that forks the worker's programs; `ForkServer` is its client.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fork_ends

from mlflow_sysmetrics.collectors import COLLECTORS

_HEADER = struct.Struct("!I")
_POLL_SECONDS = (0.002, 0.02)
_HUB_STARTS_SECONDS = 60
_HUB_POLL_SECONDS = 0.5
_LONGEST_SOCKET_PATH = 100

# The one of the interpreter's own variables that programs are given.
_ENCODING = {"PYTHONIOENCODING": "utf-8"}

MLFLOW = (
    *(
        "mlflow",
        "requests",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.dialects.postgresql",
        "psycopg2",
        "git",
    ),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.tracking.rest_store", "mlflow.store.db.utils"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.model_registry.rest_store"),
    *("mlflow.store.artifact.local_artifact_repo", "mlflow.store.artifact.mlflow_artifacts_repo"),
    *("mlflow.system_metrics.system_metrics_monitor", "multiprocessing.pool", "mlflow.artifacts"),
    *(
        "alembic.command",
        "alembic.script",
        "alembic.migration",
        "psutil",
        "click",
        "filelock",
        "rich.console",
    ),
    *("mlflow_sysmetrics.monitor", "mlflow_sysmetrics.providers", "mlflow_sysmetrics.cli"),
    *("mlflow_sysmetrics.daemon.process", "mlflow_sysmetrics.cli.__main__"),
    # What a first run loads, but for the facts: a test interrupts their import.
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.tracking.file_store", "platformdirs"),
    *(f"mlflow_sysmetrics.collectors.{one.module}" for one in COLLECTORS),
)
LEARNING = (
    *MLFLOW,
    *(
        "torch",
        "torch.utils.data",
        "torch.utils.tensorboard",
        "ignite.engine",
        "ignite.handlers",
        "ignite.metrics",
    ),
    *(
        "optuna",
        "optuna.storages",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "pandas",
        "plotly.graph_objects",
    ),
    *("mlflow.models", "mlflow.pyfunc", "mlflow.sklearn", "mlflow.pytorch", "torch._dynamo"),
    *("mlflow_sysmetrics.training.trainer.engines", "mlflow_sysmetrics.training.hpo"),
)
SERVER = (
    *MLFLOW,
    *("flask", "flask_wtf", "fastapi", "uvicorn", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("uvicorn.lifespan.on", "graphene", "mlflow.cli", "mlflow.utils.workspace_utils"),
    *("mlflow.server.fastapi_app", "uvicorn.main", "uvicorn.protocols.websockets.auto"),
)


_FRAMEWORKS = ("torch", "optuna", "sklearn", "lightning", "transformers", "keras")


class Forked(subprocess.Popen[Any]):
    """A program that a fork server has started, with the interface of `subprocess.Popen`."""

    _server: ForkServer

    # The one step of Popen that differs; its arguments up to the descriptors are the same from Python 3.10 to 3.13.
    def _execute_child(self, args: Any, *more: Any) -> None:
        cwd, env = more[4], more[5]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = more[9:15]
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            streams = [one if one >= 0 else nothing for one in (p2cread, c2pwrite, errwrite)]
            asked = {
                "arguments": list(map(os.fspath, args)),
                "cwd": os.path.abspath(cwd or "."),
                "environ": dict(env),
            }
            self.pid = self._server.ask(asked, streams)
        finally:
            os.close(nothing)
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        ends = None if timeout is None else time.monotonic() + timeout
        pause, longest = _POLL_SECONDS
        while self._internal_poll() is None:
            if ends is not None and time.monotonic() > ends:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(pause)
            pause = min(2 * pause, longest)
        return int(self.returncode)


class ForkServer:
    """Starts programs by forking a process that has imported some modules.

    Args:
        modules: the modules to import; one that is not installed is left out.
        origin: the server to fork that process from, which has imported some of them.
    """

    def __init__(self, modules: Sequence[str], origin: ForkServer | None = None) -> None:
        self._lock = threading.Lock()
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))
        }
        self._environ = kept | _ENCODING
        self._socket = self._connected(modules, origin)

    def _connected(self, modules: Sequence[str], origin: ForkServer | None) -> socket.socket:
        """Connects to the process that imports these modules; starts it if no worker has done so."""
        path = _path_of_hub(modules)
        with open(f"{path}.lock", "w", encoding="ascii") as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)
            connection = _connection_to(path)
            if connection is None:
                if origin is not None:
                    origin.ask({"hub": path, "modules": [*modules]})
                else:
                    self._start_hub(path, modules)
                ends = time.monotonic() + _HUB_STARTS_SECONDS
                while (connection := _connection_to(path)) is None:
                    assert time.monotonic() < ends, f"no fork server at {path}"
                    time.sleep(_POLL_SECONDS[1])
        return connection

    def _start_hub(self, path: str, modules: Sequence[str]) -> None:
        subprocess.run(
            [sys.executable, "-W", "ignore", __file__, path, *modules],
            check=True,
            cwd=Path(__file__).parent,  # a test's own directory may be removed
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **self._environ,
                "GIT_PYTHON_REFRESH": "quiet",
                "MLFLOW_RUN_CONTEXT_PROVIDER": "none",
                "OMP_NUM_THREADS": "1",
            },
        )

    def popen(self, arguments: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program.

        Args:
            arguments: as they follow ``python``: ``-c code``, ``-m module`` or a path, and the program's own.
            options: as `subprocess.Popen` takes them; ``env``, ``cwd``, streams and text are honoured.
        """
        environ = {**(options.pop("env", None) or os.environ)}
        arguments = list(arguments[2:] if arguments[:2] == ["-W", "ignore"] else arguments)
        # The interpreter reads these when it starts; a fork cannot change them.
        read_at_start = {name: value for name, value in environ.items() if name.startswith("PYTHON")}
        read_at_start.pop("PYTHONUNBUFFERED", None)
        if not read_at_start.items() <= self._environ.items():
            command = [sys.executable, "-W", "ignore", *arguments]
            return subprocess.Popen(command, env=environ, **options)
        kind = type("Forked", (Forked,), {"_server": self})
        started: subprocess.Popen[Any] = kind(arguments, env=environ, **options)
        return started

    def run(
        self, arguments: Sequence[str | Path], *, timeout: float, check: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end, as `subprocess.run` does with ``capture_output``."""
        options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with self.popen(arguments, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        if check:
            done.check_returncode()
        return done

    def ask(self, question: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        """Sends a question to the process that forks and returns its answer."""
        text = json.dumps(question).encode()
        with self._lock:
            socket.send_fds(self._socket, [_HEADER.pack(len(text))], list(descriptors))
            self._socket.sendall(text)
            return json.loads(_received(self._socket))

    def close(self) -> None:
        """Ends the process that forks; its programs are expected to have ended."""
        self._socket.close()


_servers: dict[tuple[str, ...], ForkServer] = {}


def popen(
    arguments: Sequence[str | Path], modules: tuple[str, ...] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Starts a program, see `ForkServer.popen`.

    Args:
        arguments: as `ForkServer.popen` takes them.
        modules: what the fork server has imported; by default what the text of the program names.
        options: as `ForkServer.popen` takes them.
    """
    return _server(modules or _needed(arguments, options.get("cwd"))).popen(arguments, **options)


def run(
    arguments: Sequence[str | Path], modules: tuple[str, ...] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, see `ForkServer.run` and `popen`."""
    return _server(modules or _needed(arguments, options.get("cwd"))).run(arguments, **options)


def run_interpreter(
    arguments: Sequence[str | Path], *, timeout: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a program like `run`, in an interpreter that starts for it."""
    command = [sys.executable, "-W", "ignore", *arguments]
    options = {"text": True, "capture_output": True, **options}
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=False, timeout=timeout, **options)
    return done


def close() -> None:
    """Ends the fork servers of this test run."""
    while _servers:
        _servers.popitem()[1].close()


def _server(modules: tuple[str, ...]) -> ForkServer:
    if modules not in _servers:
        origin = None if modules == MLFLOW else _server(MLFLOW)
        _servers[modules] = ForkServer(modules, origin)
    return _servers[modules]


def _needed(arguments: Sequence[str | Path], directory: str | Path | None) -> tuple[str, ...]:
    """Returns what a program needs to have imported: a program that names no framework gets none."""
    texts = [str(one) for one in arguments]
    texts += [Path(directory or ".", one).read_text(encoding="utf-8") for one in texts if one.endswith(".py")]
    return LEARNING if any(name in text for text in texts for name in _FRAMEWORKS) else MLFLOW


def _received(connection: socket.socket) -> bytes:
    (length,) = _HEADER.unpack(_exactly(connection, _HEADER.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = b""
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _polled(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _path_of_hub(modules: Sequence[str]) -> str:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    name = f"forks-{hashlib.sha256(repr((run, *modules)).encode()).hexdigest()[:16]}"
    path = os.path.join(tempfile.gettempdir(), name)
    return path if len(path) <= _LONGEST_SOCKET_PATH else os.path.join("/tmp", name)


def _connection_to(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def _start_hub(path: str, modules: Sequence[str]) -> dict[str, Any]:
    """Forks the process that imports modules for all workers; returns only in a program, with its question."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    if os.fork():
        os._exit(0)
    _import(modules)
    workers: set[int] = set()
    open_for_more = True
    while workers or open_for_more:
        for pid in [pid for pid in workers if _polled(pid) is not None]:
            workers.discard(pid)
            if not workers and open_for_more:  # who comes later starts another
                os.unlink(path)
                open_for_more = False
        listener.settimeout(_HUB_POLL_SECONDS if open_for_more else 0)
        try:
            connection, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            time.sleep(0 if open_for_more else _POLL_SECONDS[1])
            continue
        pid = os.fork()
        if pid == 0:
            listener.close()
            connection.setblocking(True)
            return _serve(connection)
        connection.close()
        workers.add(pid)
    os._exit(0)


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Answers the questions of one worker; returns only in a child, with the program that it is to run."""
    while True:
        header, descriptors, *_ = socket.recv_fds(connection, _HEADER.size, 3)
        if not header:
            os._exit(0)
        question: dict[str, Any] = json.loads(_exactly(connection, *_HEADER.unpack(header)))
        if "poll" in question:
            answer = _polled(question["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                connection.close()
                if "hub" in question:
                    return _start_hub(question["hub"], question["modules"])
                _become(question, descriptors)
                return question
            for one in descriptors:
                os.close(one)
        text = json.dumps(answer).encode()
        connection.sendall(_HEADER.pack(len(text)) + text)


def _import(modules: Sequence[str]) -> None:
    gc.disable()  # what is imported stays
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    # A library that configures logging when it is imported must not hide what a program that does not import it logs.
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    # The end of an interpreter and each full collection walk what was imported. In a fork that copies its pages:
    # one second for MLFLOW, 2.5 seconds for LEARNING, six times as long as without what is frozen here.
    fork_ends.spare_imported()
    gc.collect()
    gc.freeze()
    gc.enable()


def _become(question: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Gives a forked child what a program starts with: streams, directory, environment and providers."""
    for number, one in enumerate(descriptors):
        os.dup2(one, number)
        os.close(one)
    # Where the tests run in the background of a shell, SIGINT is ignored, and a program would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(question["environ"])
    os.chdir(question["cwd"])
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.path.extend(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    registry = sys.modules.get("mlflow.tracking.context.registry")
    if registry is not None:
        importlib.reload(registry)


def _run(arguments: list[str]) -> None:
    """Runs what ``python`` would run with these arguments, in the module ``__main__``."""
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    if arguments[0] == "-c":
        text, name = arguments[1], "<string>"
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
    else:
        text, name = Path(arguments[0]).read_text(encoding="utf-8"), arguments[0]
        sys.argv, sys.path[0] = arguments, str(Path(name).absolute().parent)
    main = vars(sys.modules["__main__"])
    for one in [one for one in main if not one.startswith("__")]:
        del main[one]
    main["__file__"] = name
    if arguments[0] == "-c":
        del main["__file__"]
    exec(compile(text, name, "exec", dont_inherit=True), main)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _program = _start_hub(sys.argv[1], sys.argv[2:])
    fork_ends.run(_run, _program["arguments"])
