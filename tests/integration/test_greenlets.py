"""Programs that gevent or eventlet has patched: our threads are threads, and the greenlets run on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import forks
import pytest
from counting_server import CountingServer
from programs import PATIENT, QUIET

TESTS = Path(__file__).parents[1]
FAST = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1", "MLFLOW_SYSMETRICS_SEND_INTERVAL": "0.3"}
PATCHES = {
    "gevent": "from gevent import monkey, sleep, spawn\nmonkey.patch_all()\n",
    "eventlet": (
        "import warnings\nwith warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"  # that it is deprecated
        "    import eventlet\n"
        "    from eventlet import sleep, spawn\n"
        "    eventlet.monkey_patch()\n"
    ),
}
START = f"""
import os, signal, subprocess, sys, threading
sys.path.append({str(TESTS)!r})
import mlflow, mlflow_sysmetrics
from watching import ticked, watched
"""
# A greenlet of the program, which must go on running.
BESIDE = """
class Beside:
    turns = 0
    def run(self):
        while True:
            sleep(0.001)
            self.turns += 1
beside = Beside()
spawn(beside.run)
sleep(0)
"""


def started(
    tmp_path: Path, server: CountingServer, code: str, *argv: str, forked: bool = False
) -> subprocess.Popen[str]:
    """Starts a program; one that imports MLflow before it is patched may be forked, see `forks`."""
    path = tmp_path / "program.py"
    path.write_text(code)
    spool = str(tmp_path / "spool")
    own = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_SYSMETRICS_SPOOL_DIR": spool}
    options: dict[str, Any] = {
        "env": {**os.environ, **QUIET, **PATIENT, **FAST, **own},
        "cwd": tmp_path,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    arguments = argv or (str(path),)
    if forked:
        return forks.popen(arguments, forks.MLFLOW, **options)
    return subprocess.Popen([sys.executable, "-W", "ignore", *arguments], **options)


def ended(process: subprocess.Popen[str]) -> list[str]:
    """Returns the words that a program has printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [word for line in out.splitlines() if not line.startswith(("🏃", "🧪")) for word in line.split()]


# Patched late by eventlet, urllib3 itself fails: select.poll is gone.
@pytest.mark.parametrize(("kind", "late"), [("gevent", False), ("gevent", True), ("eventlet", False)])
def test_a_patched_program(kind: str, late: bool, server: CountingServer, tmp_path: Path) -> None:
    """Its signals stay its own, its metrics are complete, and what it starts inherits nothing."""
    before = "with mlflow.start_run() as run:\n    watched()\nprint(run.info.run_id)\n"
    code = (
        (START + before + PATCHES[kind] if late else PATCHES[kind] + START)
        + BESIDE
        + dedent("""
        for _ in range(2):
            with mlflow.start_run() as run:
                watched()
            print(run.info.run_id)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        status = mlflow_sysmetrics.status()
        assert (status.points_pending, status.last_error) == (0, None), status
        if sys.platform == "linux":
            script = "grep SigBlk /proc/self/status; ls /proc/self/fd | wc -l"
            shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
            assert shell.stdout.split() == ["SigBlk:", "0" * 16, "4"], shell
    """)
    )
    run_ids = ended(started(tmp_path, server, code, forked=late))
    assert len(run_ids) == 2 + late
    for run_id in run_ids:
        assert "system/cpu_utilization_percentage" in server.points(run_id)


# What would keep all greenlets waiting: imports of ours in their thread, and the walk through the whole heap with
# which the greenlet library looks for a dead thread's event loop.
COUNTING = """
import gc
walks, imported = [], []
get_referrers = gc.get_referrers
gc.get_referrers = lambda *objects: walks.append(objects) or get_referrers(*objects)
class Imported:
    def find_spec(self, name, path, target=None):
        if name.startswith("mlflow_sysmetrics.") and threading.get_native_id() == os.getpid():
            imported.append(name)
sys.meta_path.insert(0, Imported())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the main thread has the number of the process on Linux")
@pytest.mark.parametrize("kind", PATCHES)
def test_the_first_runs_of_many_greenlets_share_a_daemon_and_keep_nobody_waiting(
    kind: str, server: CountingServer, tmp_path: Path
) -> None:
    code = (
        PATCHES[kind]
        + START
        + COUNTING
        + BESIDE
        + dedent("""
        from mlflow_sysmetrics.daemon.daemon import Daemon
        made, begin = [], Daemon.attach
        Daemon.attach = lambda daemon, *given, **named: made.append(daemon) or begin(daemon, *given, **named)
        imported.clear()
        ended = []
        def one_run():
            with mlflow.start_run():
                ticked(1)
            ended.append(1)
        for _ in range(5):
            spawn(one_run)
        while len(ended) < 5:
            sleep(0.01)
        print(len(made), len(set(map(id, made))), len(walks), len(imported), *imported)
    """)
    )
    runs, daemons, walks, count, *imported = ended(started(tmp_path, server, code))
    assert (runs, daemons, walks) == ("5", "1", "0")
    assert int(count) < 10, imported


def test_a_greenlet_may_wait_for_an_import_of_our_threads(server: CountingServer, tmp_path: Path) -> None:
    """MLflow tries three imports per request, which takes long if Python's path has a directory far away.

    A greenlet that imports the same waits for our thread; gevent would raise `LoopExit` if it is alone.
    """
    code = (
        PATCHES["gevent"]
        + START
        + dedent("""
        from gevent import wait
        from gevent.monkey import get_original
        pause = get_original("time", "sleep")
        class Slow:
            def find_spec(self, name, path, target=None):
                if name in ("dbruntime", "IPython", "pyspark"):
                    pause(0.01)
        sys.meta_path.insert(0, Slow())
        for _ in range(2):
            with mlflow.start_run() as run:
                for value in range(4):
                    mlflow.log_metric("one", value)
            print(run.info.run_id)
        assert wait(timeout=60)  # nothing of ours keeps the event loop running
    """)
    )
    for run_id in ended(started(tmp_path, server, code)):
        assert "system/system_memory_usage_megabytes" in server.points(run_id)


@pytest.mark.parametrize("kind", PATCHES)
def test_while_an_end_of_a_run_waits_greenlets_run_on_and_a_signal_ends_the_program(
    kind: str, server: CountingServer, tmp_path: Path
) -> None:
    code = (
        PATCHES[kind]
        + START
        + BESIDE
        + dedent("""
        def tell():
            before = beside.turns
            while beside.turns < before + 50:
                sleep(0.001)
            print("goes on", flush=True)
        mlflow.start_run()
        ticked(2)
        spawn(tell)
        mlflow.end_run()
    """)
    )
    server.mode("hang")
    process = started(tmp_path, server, code)
    assert process.stdout is not None
    while "goes on" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=50)  # less than the flush timeout
    assert process.returncode == -signal.SIGTERM


APP = """
import os, signal
import mlflow, mlflow_sysmetrics
from watching import ticked, watched

with mlflow.start_run():  # in gunicorn's main process
    ticked(1)

def app(environ, start_response):
    with mlflow.start_run() as run:
        watched()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    body = f"{run.info.run_id} {len(blocked)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_a_worker_of_gunicorn_ends_when_it_is_told(server: CountingServer, tmp_path: Path) -> None:
    """With --preload, the program has a run before the worker is forked and patched."""
    address = tmp_path / "socket"
    (tmp_path / "app.py").write_text(APP)
    argv = [
        "-m",
        "gunicorn",
        "-k",
        "gevent",
        "-b",
        f"unix:{address}",
        "--preload",
        "--pythonpath",
        str(TESTS),
        "app:app",
    ]
    process = started(tmp_path, server, "", *argv, forked=True)
    try:
        run_id, blocked = answered(address, process).split()
        assert blocked == "0"
        assert "system/cpu_utilization_percentage" in server.points(run_id)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Worker exiting" in err


def answered(address: Path, process: subprocess.Popen[str]) -> str:
    """Returns what the server says, as soon as it is up."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            try:
                client.connect(str(address))
            except OSError:
                time.sleep(0.05)
                continue
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("r") as answer:
                return answer.read().rpartition("\n")[2]
    raise AssertionError(process.communicate()[1] if process.poll() is not None else "no answer")
