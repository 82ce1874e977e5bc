"""A process that does not outlive its owner, seen from the owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow_sysmetrics.errors import ServerStartError

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_END_SECONDS = 10.0  # the supervisor's own grace is 3; a busy machine may be slow to run it
_GONE_SECONDS = 2.0  # for the kernel to take down what was killed


class SupervisedProcess:
    """Runs a command under `supervisor`, until it is stopped or this process ends in whatever way.

    Args:
        command: to run.
        environ: its whole environment.
        directory: where it runs.
        log: file to which its output is appended.

    Attributes:
        pid: of the command itself.

    Raises:
        ServerStartError: it could not be started.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        # Isolated, and without the packages of this environment: the supervisor needs none of them.
        supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid())]
        try:
            with log.open("ab") as output:
                self._supervisor = subprocess.Popen(  # noqa: S603 - our own program, and no shell
                    [*supervisor, *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=dict(environ),
                    cwd=directory,
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
                    | getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            raise ServerStartError(f"{sys.executable} cannot be run in {directory}: {error}") from error
        self._owner = os.getpid()
        self.pid: int | None = None
        try:
            told = self._supervisor.stdout.readline() if self._supervisor.stdout is not None else b""
        except BaseException:  # Ctrl-C, and whoever catches it has no object that could be stopped
            self.stop()
            raise
        self.pid = int(told) if told.strip().isdigit() else None  # none: its exit code tells

    def exit_code(self) -> int | None:
        """Returns how it ended; None while it runs."""
        return self._supervisor.poll()

    def wait(self, seconds: float) -> int | None:
        """Waits for its end, but no longer than this; returns as `exit_code` does."""
        with suppress(subprocess.TimeoutExpired):
            return self._supervisor.wait(seconds)
        return None

    def stop(self) -> None:
        """Ends it and all its children, and returns when they are gone. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        self._tell_to_end()
        try:
            self._supervisor.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
        except BaseException:  # a second Ctrl-C: who asks twice is in a hurry
            self._supervisor.kill()
            self._kill_what_is_left()
            raise
        self._kill_what_is_left()

    def _tell_to_end(self) -> None:
        """Says so in a byte: the end of the pipe is none while a forked child of ours holds it open too."""
        stdin, stdout = self._supervisor.stdin, self._supervisor.stdout
        if stdin is not None and not stdin.closed:
            with suppress(OSError):  # it has ended already
                os.write(stdin.fileno(), b"\n")
        for pipe in (stdin, stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _kill_what_is_left(self) -> None:
        # Only one that was killed has left its charge behind; after any other the number may be another's.
        if self._supervisor.wait() >= 0 or self.pid is None or os.name != "posix":
            return
        ends = time.monotonic() + _GONE_SECONDS  # where nobody waits for orphans, they stay as zombies
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < ends:
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.02)
