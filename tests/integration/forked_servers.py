"""Servers in the processes that they have anyway, each forked from one that has imported MLflow's server.

A `LocalServer` is three processes: the supervisor, ``mlflow server`` and uvicorn. The last two spend eight seconds
of CPU time on imports. Forked, all three have the parents, sessions, streams and environments that they would have,
but not the command lines. Tests of command lines, or of how a server ends with its owner, start interpreters.
Several workers of one server, for each of which uvicorn starts an interpreter, are forked too.

As a program this file is the supervisor.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import forks
import pytest
from sqlalchemy.engine import Engine, make_url

from mlflow_sysmetrics.server import supervised, supervisor

_SUPERVISOR = [sys.executable, "-I", "-S", str(Path(supervisor.__file__))]
_DESCRIPTORS = 256  # more than a program has open when it starts another


@contextlib.contextmanager
def servers_forked(empty_database: Path) -> Iterator[None]:
    """Has every server that starts within a ``with`` block forked.

    Args:
        empty_database: with MLflow's tables, which take a second to make; each new sqlite database begins with them.
    """

    def _supervisor(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert command[:5] == [*_SUPERVISOR, str(os.getpid())]
        store = make_url(options["env"]["MLFLOW_BACKEND_STORE_URI"])
        path = Path(options["cwd"], store.database or "")
        if store.get_backend_name() == "sqlite" and not path.exists():
            shutil.copy(empty_database, path)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as new:
                new.execute("DELETE FROM experiments")  # whose place is another one
        return forks.popen([__file__, *command[5:]], forks.SERVER, **options)

    stand_in = SimpleNamespace(**{**vars(subprocess), "Popen": _supervisor})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "subprocess", stand_in)
        yield


def popen(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Starts a program, ``-m module`` and its arguments, that has the servers that it starts forked from itself."""
    return forks.popen([__file__, *arguments], forks.SERVER, **options)


class _Here(subprocess.Popen[Any]):
    """A supervisor, or ``python -m module``, in a child forked from this process; other programs start as usual."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        is_supervisor = list(args[:4]) == _SUPERVISOR
        if list(args[:2]) != [sys.executable, "-m"] and not is_supervisor:
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        directory, environ, descriptors, leads_session = *more[4:6], more[9:15], more[20]
        for one in gc.get_objects():
            if type(one) is Engine:
                one.dispose()  # SQLite's locks do not survive a fork
        self.pid = os.fork()
        if not self.pid:
            os.chdir(directory or ".")
            _become(environ, descriptors[0:1] + descriptors[3:6:2], leads_session)
            if is_supervisor:
                _run_to_end(lambda: sys.exit(supervisor.supervise(int(args[4]), args[5:])))
            _run_to_end(lambda: forks._run(args[1:]))
        self._close_pipe_fds(*descriptors)  # type: ignore[attr-defined]


def _become(environ: dict[str, str] | None, streams: tuple[int, ...], leads_session: bool) -> None:
    """Gives a forked child what a new program has: default signals, streams, environment and session."""
    if leads_session:
        os.setsid()
    for one_signal in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one_signal, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, one in enumerate(streams):
        if one >= 0:
            os.dup2(one, number)
    gc.freeze()  # the end of an object must not close a descriptor of this process
    os.closerange(len(streams), _DESCRIPTORS)
    if environ is not None:
        os.environ.clear()
        os.environ.update(environ)
    # These have read the environment, when they were imported.
    importlib.reload(sys.modules["mlflow.server"])
    sys.modules.pop("mlflow.server.fastapi_app", None)


def _run_to_end(program: Callable[[], None]) -> NoReturn:
    """Runs a program and ends this process as the interpreter would, instead of returning to who forked it."""
    status = 1
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - as at the end of a program
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    subprocess.Popen = _Here  # type: ignore[misc]
    with contextlib.suppress(ImportError):  # MLflow 2 has no uvicorn
        import uvicorn._subprocess

        uvicorn._subprocess.spawn = multiprocessing.get_context("fork")
    if sys.argv[1] == "-m":
        forks._run(sys.argv[1:])
        sys.exit()
    os.setsid()
    sys.exit(supervisor.supervise(os.getppid(), sys.argv[1:]))
