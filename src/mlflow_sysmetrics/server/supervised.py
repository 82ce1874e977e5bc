"""A process that does not outlive its owner: the owner's side of `supervisor`."""

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
_END_SECONDS = 10.0  # the supervisor's own grace period is 3 s; a busy machine may run it late
_GONE_SECONDS = 2.0  # for the kernel to remove killed processes


class SupervisedProcess:
    """Runs a command under `supervisor` until it is stopped or this process ends, even by SIGKILL.

    Args:
        command: to run.
        environ: its complete environment.
        directory: where it runs.
        log: file to which its output is appended.

    Attributes:
        pid: process id of the command; None if it could not be started, see `exit_code`.

    Raises:
        ServerStartError: the supervisor could not be started.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        # Isolated (-I) and without site-packages (-S), neither of which the supervisor needs.
        supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid())]
        try:
            with log.open("ab") as output:
                self._supervisor = subprocess.Popen(  # our own program, without a shell
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
            raise ServerStartError(f"{sys.executable} cannot be started in {directory}: {error}") from error
        self._owner = os.getpid()
        self.pid: int | None = None
        try:
            line = self._supervisor.stdout.readline() if self._supervisor.stdout is not None else b""
        except BaseException:  # Ctrl-C: the caller does not have this object yet and could not stop it
            self.stop()
            raise
        self.pid = int(line) if line.strip().isdigit() else None

    def exit_code(self) -> int | None:
        """Returns the exit code; None while it runs."""
        return self._supervisor.poll()

    def wait(self, seconds: float) -> int | None:
        """Waits for its end, at most the given seconds; returns like `exit_code`."""
        with suppress(subprocess.TimeoutExpired):
            return self._supervisor.wait(seconds)
        return None

    def stop(self) -> None:
        """Ends it with all its children and returns when they are gone. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        self._request_end()
        try:
            self._supervisor.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
        except BaseException:  # a second Ctrl-C: the user is in a hurry
            self._supervisor.kill()
            self._kill_orphans()
            raise
        self._kill_orphans()

    def _request_end(self) -> None:
        """Sends a byte: closing the pipe is not enough while a forked child of ours holds it open, too."""
        stdin, stdout = self._supervisor.stdin, self._supervisor.stdout
        if stdin is not None and not stdin.closed:
            with suppress(OSError):  # it has ended already
                os.write(stdin.fileno(), b"\n")
        for pipe in (stdin, stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _kill_orphans(self) -> None:
        # Only a killed supervisor leaves its command behind; otherwise the pid may have been reused.
        if self._supervisor.wait() >= 0 or self.pid is None or os.name != "posix":
            return
        ends = (
            time.monotonic() + _GONE_SECONDS
        )  # without an init process that reaps them, orphans stay as zombies
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < ends:
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.02)
