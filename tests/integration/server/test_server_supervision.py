"""No process that a supervisor started outlives its owner, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from server_calls import living

from mlflow_sysmetrics.server import ServerStartError, supervised
from mlflow_sysmetrics.server.supervised import SupervisedProcess
from watching import eventually

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has neither fork nor process groups")

# A server in small: it has a child, and both are deaf to polite requests.
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(os.getpid(), child, file=sys.stderr, flush=True)
time.sleep(3600)
"""
# Ends at once when asked, and leaves its child to go on.
LEAVING = DEAF.replace("SIG_IGN", "SIG_DFL", 1).replace(
    "child = os.fork()", "child = os.fork()\nif not child: signal.signal(signal.SIGTERM, signal.SIG_IGN)"
)
# Whoever owns the server; and what else such a program may have done.
OWNER = """
import os, sys, threading, time
from pathlib import Path
from mlflow_sysmetrics.server.supervised import SupervisedProcess
log = Path(sys.argv[1])
def start():
    global process
    process = SupervisedProcess([sys.executable, "-c", sys.argv[2]], os.environ, log.parent, log)
{start}
while len(log.read_text().split()) < 2:
    time.sleep(0.01)
print("up", flush=True)
time.sleep(3600)
"""
STARTS = {
    "in its main thread": "start()",
    "in a thread that has ended": "t = threading.Thread(target=start); t.start(); t.join()",
    # The child holds the pipe that tells the supervisor of its owner's end.
    "and forked": "start()\nif not os.fork(): time.sleep(3600)",
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log to which the small servers write their pids; none of them outlives its test."""
    path = tmp_path / "log"
    path.touch()
    yield path
    for one in numbers(path):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(one).kill()


def numbers(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().split() if word.isdigit()]


def started(log: Path, program: str) -> tuple[SupervisedProcess, list[psutil.Process]]:
    process = SupervisedProcess([sys.executable, "-c", program], os.environ, log.parent, log)
    eventually(lambda: len(numbers(log)) == 2)
    return process, [psutil.Process(number) for number in numbers(log)]


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_dead_owner_leaves_no_process_behind(log: Path, start: str, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(start=start), str(log), DEAF],
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that a child that the owner has forked can be found
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        servers = [psutil.Process(one) for one in numbers(log)]
        supervisor = servers[0].parent()
        assert supervisor is not None
        os.kill(owner.pid, number)
        owner.wait()
        eventually(lambda: not living([*servers, supervisor]))
        with suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)


def test_stop_returns_after_processes_that_ignore_signals_are_gone(log: Path) -> None:
    process, servers = started(log, DEAF)
    process.stop()
    assert living(servers) == []


def test_a_forked_child_of_the_owner_does_not_delay_the_end(log: Path) -> None:
    """The child keeps the supervisor's pipe open, so its end-of-file does not come."""
    process, servers = started(log, DEAF.replace("SIG_IGN", "SIG_DFL"))
    child = os.fork()
    if child == 0:
        time.sleep(3600)
        os._exit(0)
    try:
        process.stop()
        assert process.exit_code() == 128 + signal.SIGTERM  # not killed, which is for one that does not end
        assert living(servers) == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_second_ctrl_c_kills_at_once(log: Path) -> None:
    process, servers = started(log, DEAF)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process._supervisor, "wait", interrupted(process._supervisor.wait))
        with pytest.raises(KeyboardInterrupt):
            process.stop()
    assert living(servers) == []
    assert process.exit_code() == -signal.SIGKILL


def interrupted(wait: Callable[..., int]) -> Callable[..., int]:
    """Returns a function that waits, but raises a Ctrl-C at its first call."""
    calls = iter([True])

    def first_fails(timeout: float | None = None) -> int:
        if next(calls, False):
            raise KeyboardInterrupt
        return wait(timeout)

    return first_fails


def test_a_suspended_supervisor_does_not_keep_its_command(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "_END_SECONDS", 0.1)
    process, servers = started(log, DEAF)
    supervisor = servers[0].parent()
    assert supervisor is not None
    supervisor.suspend()
    process.stop()
    assert living(servers) == []


def test_an_orphaned_child_is_ended_too(log: Path) -> None:
    process, servers = started(log, LEAVING)
    process.stop()
    assert living(servers) == []


def test_killing_the_supervisor_also_ends_its_command(log: Path) -> None:
    process, servers = started(log, DEAF)
    supervisor = servers[0].parent()
    assert supervisor is not None
    supervisor.kill()
    eventually(lambda: process.exit_code() is not None)
    process.stop()
    eventually(lambda: not living(servers))


def test_signals_of_the_owners_terminal_do_not_reach_it(log: Path) -> None:
    process, servers = started(log, DEAF)
    assert os.getsid(servers[0].pid) != os.getsid(0)
    process.stop()


def test_the_exit_code_is_that_of_the_command(log: Path) -> None:
    process = SupervisedProcess([sys.executable, "-c", "raise SystemExit(7)"], os.environ, log.parent, log)
    eventually(lambda: process.exit_code() is not None)
    assert process.exit_code() == 7
    process.stop()


def test_a_command_that_cannot_be_run_ends_at_once_with_its_reason(log: Path) -> None:
    process = SupervisedProcess(["/no/such/program"], os.environ, log.parent, log)
    eventually(lambda: process.exit_code() is not None)
    assert "No such file or directory: '/no/such/program'" in log.read_text()
    process.stop()


def test_a_missing_directory_is_reported(log: Path) -> None:
    with pytest.raises(ServerStartError, match="cannot be started in /no/such"):
        SupervisedProcess([sys.executable], os.environ, Path("/no/such"), log)
