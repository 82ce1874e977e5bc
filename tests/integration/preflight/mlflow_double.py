"""A tracking server on loopback that gives any response a test wants, and otherwise responds like MLflow.

What it knows of MLflow is what the preflight asks; test_preflight_servers.py asks real servers the same.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlflow_sysmetrics.preflight import PreflightResult

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST instead of FIN
API = "/api/2.0/mlflow/"
RunPreflight = Callable[..., PreflightResult]


@dataclass(frozen=True)
class Answer:
    """A response instead of MLflow's."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Lost:
    """The request is executed, but its response never arrives."""


@dataclass
class Hangs:
    """No response until the double is closed."""


@dataclass
class _Rule:
    path: str
    outcome: Answer | Lost | Hangs
    left: int


class Double:
    """Holds experiments and runs, and a list of the requests.

    Attributes:
        url: where it listens.
        requests: method and path of each, oldest first.
        headers: of the last request.
        runs: by id, as MLflow's JSON has them.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.url = ""
        self.closed = threading.Event()
        self.on_request: Callable[[str], None] = lambda _path: None
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.make_experiment("Default")

    def answers(self, path: str, outcome: Answer | Lost | Hangs, *, times: int = 1_000_000) -> None:
        """Sets the response to requests whose path ends like this, for a number of times."""
        self._rules.append(_Rule(path, outcome, times))

    def rule_for(self, path: str) -> Answer | Lost | Hangs | None:
        """Returns the next response to a path; None for MLflow's."""
        with self._lock:
            for rule in self._rules:
                if rule.left > 0 and path.endswith(rule.path):
                    rule.left -= 1
                    return rule.outcome
        return None

    def make_experiment(self, name: str, stage: str = "active") -> str:
        """Returns the id of a new experiment."""
        number = str(len(self.experiments))
        self.experiments[number] = {"experiment_id": number, "name": name, "lifecycle_stage": stage}
        return number

    def make_run(self, status: str = "FINISHED", stage: str = "active") -> str:
        """Returns the id of a new run, which has ended a second after it started."""
        return self._create_run({"experiment_id": "0", "start_time": 1000}, status, stage, 2000)

    def count(self, ending: str) -> int:
        """Returns how often a path was requested."""
        return sum(path.endswith(ending) for _, path in self.requests)

    def statuses(self) -> list[str]:
        """Returns the status of each run."""
        return [run["info"]["status"] for run in self.runs.values()]

    def reply(self, path: str, asked: Mapping[str, Any]) -> Answer:
        """Responds like MLflow."""
        if path == "/health":
            return Answer(200, "OK")
        if path == "/version":
            return Answer(200, "3.17.2")
        replies = {
            "experiments/get-by-name": self._experiment,
            "experiments/get": self._experiment,
            "experiments/create": self._create_experiment,
            "runs/create": lambda asked: {"run": self.runs[self._create_run(asked)]},
            "runs/get": lambda asked: {"run": self.runs[asked["run_id"]]},
            "runs/search": self._search,
            "runs/update": self._update,
            "runs/log-batch": self._log,
        }
        reply = replies.get(path.removeprefix(API))
        if reply is None:
            return Answer(404, "<html><title>404 Not Found</title><h1>Not Found</h1></html>")
        try:
            return Answer(200, json.dumps(reply(asked)))
        except KeyError as missing:
            return error(404, "RESOURCE_DOES_NOT_EXIST", f"no {missing}")

    def _experiment(self, asked: Mapping[str, Any]) -> object:
        if "experiment_id" in asked:
            return {"experiment": self.experiments[asked["experiment_id"]]}
        name = asked["experiment_name"]
        found = [one for one in self.experiments.values() if one["name"] == name]
        return {"experiment": found[0] if found else self.experiments[name]}

    def _create_experiment(self, asked: Mapping[str, Any]) -> object:
        return {"experiment_id": self.make_experiment(asked["name"])}

    def _create_run(
        self, asked: Mapping[str, Any], status: str = "RUNNING", stage: str = "active", end: int | None = None
    ) -> str:
        run_id = uuid.uuid4().hex
        told = {
            "run_id": run_id,
            "experiment_id": asked["experiment_id"],
            "status": status,
            "lifecycle_stage": stage,
            "run_name": asked.get("run_name", "made-up"),
            "start_time": asked["start_time"],
            **({"end_time": end} if end else {}),
        }
        self.runs[run_id] = {
            "info": told,
            "data": {"tags": asked.get("tags", []), "params": [], "metrics": []},
        }
        return run_id

    def _search(self, asked: Mapping[str, Any]) -> object:
        key, value = asked["filter"].split("`")[1], asked["filter"].split("'")[1]
        wanted = {"key": key, "value": value}
        return {"runs": [run for run in self.runs.values() if wanted in run["data"]["tags"]]}

    def _update(self, asked: Mapping[str, Any]) -> object:
        self.runs[asked["run_id"]]["info"].update(asked)
        return {}

    def _log(self, asked: Mapping[str, Any]) -> object:
        logged = self.runs[asked["run_id"]]["data"]
        for kind in ("metrics", "params", "tags"):
            logged[kind] = [*logged[kind], *asked.get(kind, [])]
        return {}


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """Returns an error in MLflow's format."""
    return Answer(status, json.dumps({"error_code": code, "message": message}), headers)


class _Handler(BaseHTTPRequestHandler):
    double: Double

    def do_GET(self) -> None:
        asked = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        self._serve(asked)

    def do_CONNECT(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}"))

    def _serve(self, asked: Mapping[str, Any]) -> None:
        path = urlsplit(self.path).path
        self.double.requests.append((self.command, path))
        self.double.headers = dict(self.headers)
        self.double.on_request(path)
        outcome = self.double.rule_for(path)
        if isinstance(outcome, Hangs):
            self.double.closed.wait(60)
            outcome = Lost()
        elif not isinstance(outcome, Answer):
            answer = self.double.reply(path, asked)
            outcome = answer if outcome is None else outcome
        if isinstance(outcome, Lost):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.connection.close()
            self.close_connection = True
            return
        self._send(outcome)

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        if not self.connection._closed:  # type: ignore[attr-defined] - it was reset
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_double() -> Iterator[Double]:
    """Runs a double for the duration of a ``with`` block."""
    double = Double()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield double
    finally:
        double.closed.set()
        server.shutdown()
        server.server_close()


def eventually(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Returns whether a condition becomes true within the given seconds."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
