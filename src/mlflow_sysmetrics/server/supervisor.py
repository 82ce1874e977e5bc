"""Runs one command, and ends it with all its children on request or when its owner is gone.

A separate program, which `SupervisedProcess` starts as ``python -I -S supervisor.py OWNER COMMAND...``; it
imports only the standard library, so it starts in milliseconds and needs a few megabytes. A byte on its
standard input requests the end, and so does end-of-file, as when the owner is killed and the kernel closes
the pipe. End-of-file alone would not be enough, because a forked child of the owner may keep the pipe open.
So it also watches its parent: a process whose parent has died gets another one. (Linux could send a signal
then, PR_SET_PDEATHSIG, but sends it when the *thread* that started the process ends; macOS has no
equivalent.)

The command leads its own session: a Ctrl-C at the owner's terminal does not reach it, and its remaining
processes can be ended as a group even after the leader has died.
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
# A server ends within 0.1 s; one that hangs should not outlive its owner for long.
_GRACE_SECONDS = 3.0
_GONE_SECONDS = 1.0
_IS_POSIX = os.name == "posix"
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


def supervise(owner: int, command: list[str]) -> int:
    """Runs a command until it ends or its end is requested; returns its exit code.

    Args:
        owner: pid of the parent process.
        command: to run.
    """
    ending = threading.Event()
    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda _number, _frame: ending.set())
    threading.Thread(target=_wait_for_request, args=(ending,), daemon=True).start()
    server = subprocess.Popen(  # our only caller builds it, without a shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),  # the log; our own standard output goes to the owner
        start_new_session=_IS_POSIX,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    with suppress(OSError):  # the owner is gone already
        print(server.pid, flush=True)  # the owner reads it
    while server.poll() is None and not ending.is_set() and not _is_orphan(owner):
        ending.wait(_LOOK_SECONDS)
    _end(server)
    code = server.returncode
    return code if code >= 0 else 128 - code  # like a shell reports that a signal ended it


def _wait_for_request(ending: threading.Event) -> None:
    with suppress(OSError):
        os.read(0, 1)
    ending.set()


def _is_orphan(owner: int) -> bool:
    return _IS_POSIX and os.getppid() != owner


def _end(server: subprocess.Popen[bytes]) -> None:
    """Asks the command and its children to end, and kills what is left after the grace period."""
    if not _IS_POSIX:
        subprocess.run(  # a tool of Windows, which cannot kill process groups
            ["taskkill", "/F", "/T", "/PID", str(server.pid)],  # found on the PATH of every Windows
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        server.wait()
        return
    _signal_group(server.pid, signal.SIGTERM)
    ends = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < ends:
        # The leader may end long before its children: MLflow 2 does not wait for its workers.
        if server.poll() is not None and not _signal_group(server.pid, 0):
            return
        time.sleep(0.02)
    _signal_group(server.pid, signal.SIGKILL)
    server.wait()
    # A killed child takes a moment to go. Without an init process that reaps it, it stays as a zombie.
    ends = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < ends and _signal_group(server.pid, 0):
        time.sleep(0.02)


def _signal_group(group: int, number: int) -> bool:
    """Signals a process group; returns whether it has processes. macOS refuses if only zombies are left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2:]))
