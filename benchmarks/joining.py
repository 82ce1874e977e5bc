"""Simulated nodes that look for the run of their job at the same time: what the tracking server is asked.

    python benchmarks/joining.py --nodes 1000
    python benchmarks/joining.py --nodes 1000 --monitor built-in
    python benchmarks/joining.py --nodes 1000 --count-only

Nodes begin to look within a minute; the owner tags its run some seconds after the first of them. Each uses
the rendezvous, the sender and the run queue of the package, over a minimal connection instead of MLflow's
client. The nodes of the built-in monitor are told the run, since they cannot find it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from typing import Any

import psutil
from mlflow import MlflowClient

from mlflow_sysmetrics import LocalServer
from mlflow_sysmetrics.cluster import rendezvous
from mlflow_sysmetrics.cluster.rendezvous import Rendezvous, TaggedRuns
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault
from mlflow_sysmetrics.mlflow_api.fluent_state import ExperimentChoice
from mlflow_sysmetrics.mlflow_api.runs import FoundRun
from mlflow_sysmetrics.runtime.clock import SystemClock

_API = "/api/2.0/mlflow/"
_KEY = "slurm:7"
_LOOK_SECONDS = 1.0
_TIMEOUT_SECONDS = 60
_OK = 200
_SERIES = 23
_SEND_INTERVAL = 10.0
_BUILT_IN_SERIES = 8


class Line:
    """The requests of one node: their number and duration.

    Args:
        port: port of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.seconds: list[float] = []
        self.failures = 0

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Sends a request over a connection of its own, and returns the answer.

        Raises:
            Fault: it failed.
        """
        began = time.perf_counter()
        try:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
            try:
                text = None if body is None else json.dumps(body)
                connection.request(method, _API + path, text, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                found = answer.read()
            finally:
                connection.close()
        except OSError as error:
            self.failures += 1
            raise Fault(str(error), Cause.DOWN) from error
        finally:
            self.seconds.append(time.perf_counter() - began)
        if answer.status != _OK:
            self.failures += 1
            raise Fault(f"HTTP {answer.status}", Cause.DOWN, status_code=answer.status)
        return json.loads(found)


class CountedLine(Line):
    """Answers in this process: counts what nodes ask, on a machine that a server for them would fill."""

    run: dict[str, Any] | None = None  #: once its owner has tagged it

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Counts a request, and answers as a server."""
        del method, body
        self.seconds.append(0.0)
        if path == "runs/search":
            return {"runs": [self.run] if self.run else []}
        if path == "experiments/search":
            return {"experiments": [{"experiment_id": "0"}]}
        return {"run": self.run} if path.startswith("runs/get") else {}


class Node:
    """A node that joins a run and sends to it.

    Args:
        line: to the server.
        number: its number.
        delay: seconds until it begins to look.
        send_interval: seconds between two sends.
    """

    def __init__(self, line: Line, number: int, delay: float, send_interval: float) -> None:
        self.line = line
        self.asked_to_join: int | None = None
        self._number = number
        self._delay = delay
        self._send_interval = send_interval
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.stop = threading.Event()

    def search(self, experiments: Sequence[str], wanted: str, most: int) -> list[FoundRun]:
        """Searches as `mlflow_api.runs` does."""
        body = {"experiment_ids": list(experiments), "filter": wanted, "max_results": most}
        found = self.line.ask("POST", "runs/search", body).get("runs", ())
        return [
            FoundRun(
                run["info"]["run_id"],
                int(run["info"]["start_time"]),
                {tag["key"]: tag["value"] for tag in run["data"]["tags"]},
            )
            for run in found
        ]

    def experiment_ids(self, _name: str | None) -> list[str]:
        """Lists all experiments."""
        listed = self.line.ask("POST", "experiments/search", {"max_results": 1000})
        return [one["experiment_id"] for one in listed["experiments"]]

    def has_ended(self, run_id: str) -> bool:
        """Asks whether the run is over."""
        answer = self.line.ask("GET", f"runs/get?run_id={run_id}")
        return bool(answer["run"]["info"]["status"] != "RUNNING")

    def tags(self, _run_id: str) -> Mapping[str, str]:
        """Never called: the run does not end."""
        raise NotImplementedError

    def started_at(self, _run_id: str) -> int:
        """Never called: the search tells it."""
        raise NotImplementedError

    def send(self, run_id: str, points: Sequence[Any], steps: Sequence[int], tags: Mapping[str, str]) -> None:
        """Sends one batch."""
        metrics = [
            {"key": point.key, "value": point.value, "timestamp": point.timestamp, "step": step}
            for point, step in zip(points, steps, strict=True)
        ]
        sent = [{"key": key, "value": value} for key, value in tags.items()]
        self.line.ask("POST", "runs/log-batch", {"run_id": run_id, "metrics": metrics, "tags": sent})

    def close(self) -> None:
        """Does nothing."""

    def _live(self) -> None:
        self.stop.wait(self._delay)
        runs = TaggedRuns(_KEY, lambda: "http://simulated", open_search=lambda _: self)
        looked = Rendezvous([], runs, lambda: True, time.monotonic())
        location = None
        while location is None and not self.stop.is_set():
            location = looked.look(time.monotonic())
            self.stop.wait(0 if location else _LOOK_SECONDS)
        if location is None:
            return
        self.asked_to_join = len(self.line.seconds)
        sender = Sender("http://simulated", lambda _: self, SystemClock())
        queue = RunQueue(location.run_id, location.started_at, self._send_interval)
        sender.watch_end(queue, lambda _: None)
        names = [f"system/node_{self._number}/series_{one}" for one in range(_SERIES)]
        while not self.stop.is_set():
            now = time.time_ns() // 1_000_000
            sender.append(queue, [Point(name, 1.5, now) for name in names])
            while sender.send_next():
                pass
            self.stop.wait(min(max(sender.due_in(), 0.1), self._send_interval))


class BuiltInNode(Node):
    """A node with MLflow's own monitor, which asks for its run before it sends each reading.

    Its program enters the run with `start_run(run_id=...)`.
    """

    run_id = ""  #: told to all of them once it is there

    def _live(self) -> None:
        self.stop.wait(self._delay)
        while not self.run_id and not self.stop.is_set():
            self.stop.wait(_LOOK_SECONDS)
        with suppress(Fault):
            self.line.ask("GET", f"runs/get?run_id={self.run_id}")
        self.asked_to_join = len(self.line.seconds)
        names = [f"system/node_{self._number}/series_{one}" for one in range(_BUILT_IN_SERIES)]
        step = 0
        while not self.stop.wait(self._send_interval):
            now = time.time_ns() // 1_000_000
            with suppress(Fault):
                self.line.ask("GET", f"runs/get?run_id={self.run_id}")
                self.send(self.run_id, [Point(name, 1.5, now) for name in names], [step] * len(names), {})
            step += 1


def measure(
    kind: type[Node], count: int, *, within: float, owner_after: float, seconds: float, server: bool
) -> dict[str, float]:
    """Returns what the nodes have asked.

    Args:
        kind: of the nodes.
        count: number of nodes.
        within: seconds within which they begin to look.
        owner_after: seconds after the first node at which the run is tagged.
        seconds: how long they send after that minute.
        server: whether there is one; without, requests are counted only.
    """
    tags = {"sysmetrics.job": f"{_KEY} {time.time_ns() // 1_000_000}"}
    with ExitStack() as stack:
        url = stack.enter_context(LocalServer(workers=2)).url if server else None
        port = 0 if url is None else int(url.rpartition(":")[2])
        lines = [Line(port) if server else CountedLine(port) for _ in range(count)]
        nodes = [
            kind(line, place, within * place / count, _SEND_INTERVAL) for place, line in enumerate(lines)
        ]
        for node in nodes:
            node.thread.start()
        time.sleep(owner_after)
        begin_run(url, tags)
        time.sleep(within - owner_after + seconds / 2)
        before, cpu_before = sum(len(line.seconds) for line in lines), cpu_of_children()
        time.sleep(seconds)
        after, cpu_after = sum(len(line.seconds) for line in lines), cpu_of_children()
        for node in nodes:
            node.stop.set()
        for node in nodes:
            node.thread.join(_TIMEOUT_SECONDS)
    joined = [node.asked_to_join for node in nodes if node.asked_to_join is not None]
    durations = sorted(one for line in lines for one in line.seconds)
    return {
        "nodes": count,
        "joined": len(joined),
        "requests to join, mean": statistics.mean(joined),
        "requests to join, most": max(joined),
        "requests per node and send interval": (after - before) / count / seconds * _SEND_INTERVAL,
        "server's CPU seconds per second": (cpu_after - cpu_before) / seconds,
        "failures": sum(line.failures for line in lines),
        "median seconds of a request": statistics.median(durations),
        "99th percentile of seconds": durations[int(len(durations) * 0.99)],
    }


def begin_run(url: str | None, tags: dict[str, str]) -> None:
    """Starts the run of the job, with its tags."""
    if url is None:
        info = {"run_id": "1" * 32, "start_time": time.time_ns() // 1_000_000, "status": "RUNNING"}
        tagged = [{"key": key, "value": value} for key, value in tags.items()]
        CountedLine.run = {"info": info, "data": {"tags": tagged}}
        BuiltInNode.run_id = "1" * 32
    else:
        BuiltInNode.run_id = MlflowClient(url).create_run("0", tags=tags).info.run_id


def cpu_of_children() -> float:
    """Returns the CPU seconds of the server's processes."""
    times = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="number of nodes")
    parser.add_argument("--within", type=float, default=60.0, help="seconds within which they begin to look")
    parser.add_argument("--owner-after", type=float, default=5.0, help="seconds until the run is there")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they send")
    parser.add_argument("--all-experiments", action="store_true", help="no experiment is set on the nodes")
    parser.add_argument("--monitor", choices=["ours", "built-in"], default="ours", help="what samples")
    parser.add_argument("--count-only", action="store_true", help="no server: only count what is asked")
    options = parser.parse_args()
    known = None if options.all_experiments else "0"
    rendezvous.experiment_of_environment = lambda: ExperimentChoice(None, known)
    found = measure(
        BuiltInNode if options.monitor == "built-in" else Node,
        options.nodes,
        within=options.within,
        owner_after=options.owner_after,
        seconds=options.seconds,
        server=not options.count_only,
    )
    for name, value in found.items():
        with suppress(ValueError):
            print(f"{name:40} {value:.3f}".rstrip("0").rstrip("."))


if __name__ == "__main__":
    main()
