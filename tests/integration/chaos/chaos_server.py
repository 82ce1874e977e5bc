"""A real `mlflow server` that can be killed and started again, read through its own database."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import forks
import psutil
from databases import Database

HOST = "127.0.0.1"
SERVER = Path(forks.__file__).with_name("mlflow_server.py")
_STARTS_WITHIN_SECONDS = 600  # 5 s on an idle machine; importing MLflow on a busy one takes its time
_ENVIRON = {
    "MLFLOW_RUN_CONTEXT_PROVIDER": "none",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes that would only warm the machine
    "GIT_PYTHON_REFRESH": "quiet",
}


class Stored(NamedTuple):
    """One row of the server's table of metrics."""

    run_id: str
    key: str
    timestamp: int
    step: int
    value: float


def free_port() -> int:
    """Returns a free loopback port."""
    with closing(socket.socket()) as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


class TrackingServer:
    """Runs `mlflow server` on one port and one database, as often as it is started.

    Args:
        database: one with MLflow's tables in it.
        log: where the server's output goes.
    """

    def __init__(self, database: Database, log: Path) -> None:
        self.database = database
        self.port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Starts it and returns once it answers.

        Raises:
            RuntimeError: it does not answer; the message is its output.
        """
        command = [SERVER, "server", "--workers", "1", "--host", HOST]
        with self._log.open("ab") as output:
            self._process = forks.popen(
                [*command, "--port", str(self.port), "--backend-store-uri", self.database.uri],
                forks.SERVER,
                env={**os.environ, **_ENVIRON},
                cwd=self._log.parent,  # the artifact directory is made where it is started
                stdout=output,
                stderr=output,
            )
        ends = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not self._answers():
            if time.monotonic() > ends or self._process.poll() is not None:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.05)

    def kill(self) -> None:
        """Kills the server and its workers."""
        if self._process is None:
            return
        family = [psutil.Process(self._process.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            process.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=10)
        self._process = None

    def new_run(self) -> str:
        """Creates a run that starts now, without a client library."""
        asked = {"experiment_id": "0", "start_time": time.time_ns() // 1_000_000}
        run_id: str = self.call("POST", "runs/create", asked)["run"]["info"]["run_id"]
        return run_id

    def call(self, method: str, endpoint: str, body: dict[str, Any] | None = None) -> Any:
        """Calls an endpoint of the tracking API and returns its response.

        Raises:
            RuntimeError: the answer is not 200.
        """
        with closing(HTTPConnection(HOST, self.port, timeout=120)) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request(method, f"/api/2.0/mlflow/{endpoint}", json.dumps(body or {}), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{method} {endpoint}: {answer.status} {text}")
        return json.loads(text)

    def points(self, *run_ids: str) -> list[Stored]:
        """Returns every system metric of the runs, in table order."""
        select = "SELECT run_uuid, key, timestamp, step, value FROM metrics WHERE run_uuid IN :run_ids"
        rows = self.database.rows(f"{select} AND key LIKE 'system/%'", run_ids=list(run_ids))
        return [Stored(*row) for row in rows]

    def started_at(self, *run_ids: str) -> dict[str, int]:
        """Returns when each run started, in milliseconds since 1970."""
        select = "SELECT run_uuid, start_time FROM runs WHERE run_uuid IN :run_ids"
        return dict(self.database.rows(select, run_ids=list(run_ids)))

    def tags(self, run_id: str) -> dict[str, str]:
        """Returns the tags of a run."""
        rows = self.database.rows("SELECT key, value FROM tags WHERE run_uuid = :run_id", run_id=run_id)
        return dict(rows)

    def _answers(self) -> bool:
        try:
            with closing(HTTPConnection(HOST, self.port, timeout=5)) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == HTTPStatus.OK
        except OSError:
            return False
