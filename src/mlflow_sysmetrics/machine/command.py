"""Runs the tools of the operating system, within a budget of time.

A tool is run without a shell, without input, in the C locale, and never longer than its budget. It runs in
its own process group, and on timeout the whole group is killed: the children of a hung nvidia-smi hold our
pipe too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.reasons import words_for

RunCommand = Callable[[Sequence[str]], str]
"""Runs a command line and returns what it printed; raises `Unavailable`."""

# A process in uninterruptible sleep (a hung driver) survives SIGKILL until the driver responds. This is how
# long to wait for the killed group to close the pipe; after that it is left to the kernel.
_REAP_SECONDS = 0.2


class CommandMissing(Unavailable):
    """The tool is not installed."""


class CommandFailed(Unavailable):
    """The tool ended with an error.

    Attributes:
        exit_code: its exit code; negative for the signal that ended it.
        output: what it had printed.
    """

    def __init__(self, tool: str, exit_code: int, output: str) -> None:
        super().__init__(f"{tool} failed with exit code {exit_code}")
        self.exit_code = exit_code
        self.output = output


class CommandTimeout(Unavailable):
    """The tool did not finish in time."""


class Commands:
    """Runs commands that together may take `budget_seconds`.

    Attributes:
        budget_seconds: the longest that one command, and all of them together, may take.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        budget_seconds: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_seconds = budget_seconds
        self._left_seconds = budget_seconds
        self._clock = clock
        # Their output is parsed, so it must not be in the user's language.
        self._environ = {**environ, "LC_ALL": "C"}
        self._subprocess = _native_subprocess()

    def __call__(self, command: Sequence[str]) -> str:
        """Returns what `command` printed on its standard output.

        Raises:
            CommandMissing: there is no such tool.
            CommandFailed: it ended with an exit code other than 0.
            CommandTimeout: it did not finish within what is left of the budget.
            Unavailable: it may not be run.
        """
        tool = os.path.basename(command[0])
        if self._left_seconds <= 0:
            raise CommandTimeout(f"{tool} was not run: other commands took {self.budget_seconds:g} s")
        started = self._clock()
        try:
            process = self._start(command)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CommandMissing(f"{tool} is not installed") from error
        except OSError as error:
            raise Unavailable(f"{tool} could not be started: {words_for(error)}") from error
        try:
            printed, _ = process.communicate(timeout=self._left_seconds)
        except self._subprocess.TimeoutExpired as error:
            _end(process, self._subprocess.TimeoutExpired)
            raise CommandTimeout(f"{tool} did not finish within {self.budget_seconds:g} s") from error
        finally:
            self._left_seconds -= self._clock() - started
        output = printed.decode("utf-8", "replace")
        if process.returncode != 0:
            raise CommandFailed(tool, process.returncode, output)
        return output

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # No "with": it waits for the process without a limit.
        popen: type[subprocess.Popen[bytes]] = self._subprocess.Popen
        return popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )


def _native_subprocess() -> Any:
    """Returns `subprocess`; a copy of it if gevent has patched it, because gevent's needs the main thread."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return subprocess
    spec = importlib.util.find_spec("subprocess")
    if spec is None or spec.loader is None:  # never: it is in the standard library
        return subprocess
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # gevent's versions of these wait for the event loop of their thread.
    for name, functions in (("os", ("close", "waitpid")), ("time", ("sleep",))):
        originals = {function: monkey.get_original(name, function) for function in functions}
        setattr(module, name, SimpleNamespace(**{**vars(importlib.import_module(name)), **originals}))
    return module


def _end(process: subprocess.Popen[bytes], timeout_expired: type[Exception]) -> None:
    """Kills the process and its group, and closes the pipe whether or not they end."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it ended meanwhile
            process.kill()
    else:
        process.kill()
    try:
        process.communicate(timeout=_REAP_SECONDS)
    except timeout_expired:
        # On Windows a thread still reads the pipe, and closing it would wait for that thread.
        if os.name == "posix" and process.stdout is not None:
            process.stdout.close()
