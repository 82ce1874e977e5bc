"""Runs one command, and ends it with all its children when it is told to or its owner is gone.

A program of its own, which `SupervisedProcess` starts as ``python -I -S supervisor.py OWNER COMMAND...``; it
imports nothing but the standard library, so that it takes milliseconds and a few megabytes. It is told to end
by a byte on its standard input, or by the end of that, which the kernel closes too when the owner is killed;
that alone would not do, as a forked child of the owner may hold the other end of the pipe for longer. So it
also watches whose child it is: a process whose parent has died is given to another one. (Linux could send it
a signal then, PR_SET_PDEATHSIG, but does so when the *thread* ends that started it; macOS has nothing of the
kind.)

The command leads a session of its own: a Ctrl-C at the owner's terminal is the owner's, and what is left of
the command can be ended as a group, whoever of it has died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

_LOOK_SECONDS = 0.2
# A server's own end takes 0.1 s; one that hangs shall not outlive its owner by five.
_GRACE_SECONDS = 3.0
_IS_POSIX = os.name == "posix"
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


def supervise(owner: int, command: list[str]) -> int:
    """Runs a command until it ends, or is to end; returns its exit code.

    Args:
        owner: the process that this one is a child of.
        command: to run.
    """
    told = threading.Event()
    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda _number, _frame: told.set())
    threading.Thread(target=_wait_for_word, args=(told,), daemon=True).start()
    server = subprocess.Popen(  # noqa: S603 - what our only caller has put together, and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),  # the log; our own standard output is for the owner
        start_new_session=_IS_POSIX,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    with suppress(OSError):  # an owner that is gone already
        print(server.pid, flush=True)  # noqa: T201 - this is how the owner learns it
    while server.poll() is None and not told.is_set() and not _is_orphan(owner):
        told.wait(_LOOK_SECONDS)
    _end(server)
    code = server.returncode
    return code if code >= 0 else 128 - code  # as a shell says that a signal has ended it


def _wait_for_word(told: threading.Event) -> None:
    with suppress(OSError):
        os.read(0, 1)
    told.set()


def _is_orphan(owner: int) -> bool:
    return _IS_POSIX and os.getppid() != owner


def _end(server: subprocess.Popen[bytes]) -> None:
    """Asks the command and its children to end, and kills what has not after the grace."""
    if not _IS_POSIX:
        subprocess.run(  # noqa: S603 - of Windows, which has no process groups that could be killed
            ["taskkill", "/F", "/T", "/PID", str(server.pid)],  # noqa: S607 - as above
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        server.wait()
        return
    _signal_group(server.pid, signal.SIGTERM)
    ends = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < ends:
        # The leader may be gone long before its children: MLflow 2 does not wait for its workers.
        if server.poll() is not None and not _signal_group(server.pid, 0):
            return
        time.sleep(0.02)
    _signal_group(server.pid, signal.SIGKILL)
    server.wait()


def _signal_group(group: int, number: int) -> bool:
    """Signals a group, and returns whether anybody of it is there. macOS refuses where only zombies are."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2:]))
