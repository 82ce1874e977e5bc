"""A plain `mlflow server` on loopback, for the time of a ``with`` block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 120  # MLflow takes 3 s to import on an idle machine, and half a minute on a busy one


@contextmanager
def running_server(backend_uri: str, artifacts: Path) -> Iterator[str]:
    """Starts a server and yields its URL once it answers.

    The one place to put `mlflow_sysmetrics.LocalServer` in.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = artifacts / "server.log"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += [
        "--workers",
        "1",
        "--backend-store-uri",
        backend_uri,
        "--artifacts-destination",
        str(artifacts),
    ]
    environ = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nobody asked for
        "MLFLOW_RUN_CONTEXT_PROVIDER": "none",
    }
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, server, log)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its own group: the workers with it
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not _answers(url):
        if time.monotonic() > ends or server.poll() is not None:
            raise AssertionError(f"no server at {url}:\n{log.read_text()[-4000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - our own, on loopback
            return True
    except OSError:
        return False
