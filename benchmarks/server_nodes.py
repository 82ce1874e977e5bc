"""Simulated nodes: the requests that a tracking server receives from many machines at once.

Ours use the senders and run queues of the package; the others send what the built-in monitor sends. Both use
the same minimal connection instead of MLflow's client, which would use more of this machine than the server.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol

_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_GET_RUN = "/api/2.0/mlflow/runs/get"
_TIMEOUT_SECONDS = 60
_OK = 200


@dataclass
class Yield:
    """What arrived while measuring.

    Attributes:
        points: points accepted by the server.
        seconds: duration of each request.
        failures: failed requests.
        counts: whether requests are counted now.
    """

    points: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    counts: bool = False

    def add(self, points: int, seconds: float) -> None:
        """Counts a request, while measuring."""
        with self._lock:
            if self.counts:
                self.points += points
                self.seconds.append(seconds)

    def fail(self) -> None:
        """Counts a failed request, while measuring."""
        with self._lock:
            self.failures += self.counts


class Line:
    """A persistent connection to the server, like that of MLflow's client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: HTTPConnection | None = None

    def request(self, method: str, path: str, body: str | None = None) -> None:
        """Sends a request and reads the answer.

        Raises:
            OSError: the request failed.
        """
        kept = self._connection is not None
        try:
            status, text = self._ask(method, path, body)
        except OSError:
            if not kept:
                raise
            # The server closes idle connections after some seconds; MLflow's client reconnects too.
            status, text = self._ask(method, path, body)
        if status != _OK:
            raise OSError(f"{status}: {text[:200]!r}")

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            self._connection = None
            raise OSError(f"{type(error).__name__}: {error}") from error


class Nodes(Protocol):
    """Nodes that send until they are stopped."""

    def start(self) -> None:
        """Starts sending."""

    def stop(self) -> None:
        """Stops sending, and waits for requests in progress."""


class BuiltInNodes:
    """One thread per node, like the built-in monitor: it reads, requests its run, and sends the reading.

    Args:
        port: port of the server.
        runs: one per node.
        series: names of the metrics.
        interval: seconds between two readings.
        taken: counts what arrives.
    """

    def __init__(
        self, port: int, runs: Sequence[str], series: Sequence[str], interval: float, taken: Yield
    ) -> None:
        self._port = port
        self._runs = runs
        self._series = series
        self._interval = interval
        self._taken = taken
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(run, place / len(runs)), daemon=True)
            for place, run in enumerate(runs)
        ]

    def start(self) -> None:
        """Starts sending."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops sending, and waits for requests in progress."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_SECONDS)

    def _live(self, run: str, share: float) -> None:
        line = Line(self._port)
        step = 0
        self._stop.wait(share * self._interval)  # spread the starts
        while not self._stop.wait(self._interval):
            began = time.perf_counter()
            try:
                line.request("GET", f"{_GET_RUN}?run_id={run}")
                line.request("POST", _LOG_BATCH, self._body(run, step))
            except OSError:
                self._taken.fail()
            else:
                self._taken.add(len(self._series), time.perf_counter() - began)
            step += 1

    def _body(self, run: str, step: int) -> str:
        now = time.time_ns() // 1_000_000
        metrics = [
            {"key": key, "value": step % 97 + 0.123, "timestamp": now, "step": step} for key in self._series
        ]
        return json.dumps({"run_id": run, "metrics": metrics})


class OurNodes:
    """Run queues filled by a thread, and one sender per node that empties them.

    Args:
        port: port of the server.
        runs: one per node.
        series: names of the metrics.
        interval: seconds between two points of a series.
        send_interval: seconds between two requests of a node.
        taken: counts what arrives.
    """

    def __init__(  # noqa: PLR0917 - the properties of a fleet
        self,
        port: int,
        runs: Sequence[str],
        series: Sequence[str],
        interval: float,
        send_interval: float,
        taken: Yield,
    ) -> None:
        from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
        from mlflow_sysmetrics.daemon.delivery.sender import Sender
        from mlflow_sysmetrics.runtime.clock import SystemClock

        self._interval = interval
        self._series = series
        self._stop = threading.Event()
        started_at = time.time_ns() // 1_000_000
        self._nodes = []
        for place, run in enumerate(runs):
            sink = LeanSink(port, taken)
            sender = Sender("http://simulated", lambda _, sink=sink: sink, SystemClock())
            queue = RunQueue(run, started_at, send_interval)
            queue.sent_at = time.monotonic() - send_interval * place / len(runs)  # spread the sends
            self._nodes.append((sender, queue))
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def start(self) -> None:
        """Starts sending."""
        for place, (sender, _) in enumerate(self._nodes):
            sender.thread_name = f"simulated-{place}"
        self._feeder.start()

    def stop(self) -> None:
        """Stops sending, and waits for requests in progress."""
        self._stop.set()
        self._feeder.join()
        for sender, queue in self._nodes:
            queue.refuse("the measurement is over")
            sender.append(queue)

    def _feed(self) -> None:
        from mlflow_sysmetrics.daemon.delivery.points import Point

        due = time.monotonic()
        number = 0
        while not self._stop.wait(max(due - time.monotonic(), 0)):
            now = time.time_ns() // 1_000_000
            points = [Point(key, number % 97 + 0.123, now) for key in self._series]
            for sender, queue in self._nodes:
                sender.append(queue, points)
            number += 1
            due += self._interval


class LeanSink:
    """Delivers over a separate connection, and records the duration.

    Args:
        port: port of the server.
        taken: counts what arrives.
    """

    def __init__(self, port: int, taken: Yield) -> None:
        self._line = Line(port)
        self._taken = taken

    def started_at(self, run_id: str) -> int:
        """Never called: the queues know the start."""
        raise NotImplementedError(run_id)

    def has_ended(self, run_id: str) -> bool:
        """Never called: nothing is replayed."""
        raise NotImplementedError(run_id)

    def send(self, run_id: str, points: Sequence[Any], steps: Sequence[int], tags: Mapping[str, str]) -> None:
        """Sends one batch.

        Raises:
            Fault: the request failed.
        """
        from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

        del tags
        metrics = [
            {"key": point.key, "value": point.value, "timestamp": point.timestamp, "step": step}
            for point, step in zip(points, steps, strict=True)
        ]
        began = time.perf_counter()
        try:
            self._line.request("POST", _LOG_BATCH, json.dumps({"run_id": run_id, "metrics": metrics}))
        except OSError as error:
            self._taken.fail()
            raise Fault(str(error), Cause.DOWN) from error
        self._taken.add(len(points), time.perf_counter() - began)

    def close(self) -> None:
        """Leaves the connection open: the nodes send until the end."""
