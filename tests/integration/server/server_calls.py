"""Calls to a tracking server without a client library, with any host name."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

_API = "/api/2.0/mlflow/"


class Answer(NamedTuple):
    """A response."""

    status: int
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


def call(url: str, method: str, endpoint: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
    """Calls an endpoint of the tracking API, or a path that begins with a slash."""
    path = endpoint if endpoint.startswith("/") else f"{_API}{endpoint}"
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode())


def new_run(url: str, **headers: str) -> str:
    """Creates a run in the default experiment and returns its id."""
    answer = call(url, "POST", "runs/create", {"experiment_id": "0", "start_time": 1}, **headers)
    assert answer.status == 200, answer
    run_id: str = answer.document["run"]["info"]["run_id"]
    return run_id


def log_metric(url: str, run_id: str, step: int) -> Answer:
    """Logs one point."""
    point = {"key": "loss", "value": step, "timestamp": step, "step": step}
    return call(url, "POST", "runs/log-batch", {"run_id": run_id, "metrics": [point]})


def family(pid: int) -> list[psutil.Process]:
    """Returns a process and all its descendants."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Returns those that still run; a zombie does not."""
    return [one for one in processes if _lives(one)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
