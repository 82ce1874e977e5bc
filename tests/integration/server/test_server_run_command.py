"""`mlflow-sysmetrics server run` in a shell: running, ended, killed, and with a port in use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import forked_servers
import psutil
import pytest
from server_calls import call, family, living, new_run

from watching import eventually

COMMAND = [sys.executable, "-W", "ignore", "-m", "mlflow_sysmetrics.cli", "server", "run"]
ENVIRON = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, on a free port; forked, see `forked_servers`."""
    command = [*COMMAND[3:], "--port", "0", "--dir", str(tmp_path / "kept")]
    with forked_servers.popen(command, env=ENVIRON, stdout=subprocess.PIPE, text=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


def address(running: subprocess.Popen[str]) -> str:
    """Returns the address that the command prints."""
    assert running.stdout is not None
    for line in running.stdout:
        if "export MLFLOW_TRACKING_URI=" in line:
            return line.strip().rpartition("=")[2]
    raise AssertionError("it ended before it answered")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_on_request_and_keeps_its_data(
    running: subprocess.Popen[str], number: int, tmp_path: Path
) -> None:
    url = address(running)
    assert new_run(url)
    processes = family(running.pid)
    running.send_signal(number)
    assert running.wait(60) == 0
    assert living(processes) == []
    assert (tmp_path / "kept" / "mlflow.db").exists()


def test_killed_it_leaves_no_server_behind(running: subprocess.Popen[str]) -> None:
    address(running)
    processes = family(running.pid)
    running.kill()
    eventually(lambda: not living(processes))


def test_a_signal_ignored_by_nohup_stays_ignored(tmp_path: Path) -> None:
    command = ["nohup", *COMMAND, "--port", "0", "--dir", str(tmp_path / "kept")]
    with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = address(process)
            process.send_signal(signal.SIGHUP)
            assert new_run(url)
            assert process.poll() is None
        finally:
            process.terminate()
        assert process.wait(60) == 0


def test_a_server_that_dies_is_reported_with_exit_status_1(running: subprocess.Popen[str]) -> None:
    url = address(running)
    assert call(url, "GET", "/health").status == 200
    (supervisor,) = psutil.Process(running.pid).children()
    (first,) = supervisor.children()
    first.kill()
    assert running.wait(60) == 1


def test_a_port_in_use_has_exit_status_1(tmp_path: Path) -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        command = [*COMMAND, "--port", port, "--dir", str(tmp_path / "new")]
        done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 is not available" in done.stderr
    assert "Traceback" not in done.stderr
