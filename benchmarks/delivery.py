"""CPU time of delivering points over REST: a bare HTTP client, `MlflowClient.log_batch`, and ours.

Usage::

    python benchmarks/delivery.py [--rounds 40] [--json]

All sides send the same points to a counting server over one connection each, in turn, in one process. Ours is
the whole way of a point: into the queue of its run, through the sender, to the server's acknowledgement.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection

from counting_server import CountingServer, counting_server
from tables import NOISE, Cell, Table, figure, machine

BARE, MLFLOW, OURS = "bare http.client", "MlflowClient.log_batch", "ours"
LIMIT = 2.0  # times the bare client's, at 23 points per request
SERIES = 23
SIZES = (SERIES, 10 * SERIES, 40 * SERIES)  # a tick, the ten ticks between two sends, nearly a full request
_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_HEADERS = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "benchmark"}
_POINTS_PER_TURN = 1840

Points = Sequence[tuple[str, float, int, int]]
Send = Callable[[Points], None]


def bare(server: CountingServer, run_id: str) -> Send:
    """Returns what sends points as cheaply as Python's standard library can."""
    connection = HTTPConnection("127.0.0.1", server.port)

    def send(points: Points) -> None:
        metrics = [
            {"key": key, "value": value, "timestamp": timestamp, "step": step}
            for key, value, timestamp, step in points
        ]
        body = json.dumps({"run_id": run_id, "metrics": metrics, "tags": []})
        connection.request("POST", _LOG_BATCH, body, _HEADERS)
        response = connection.getresponse()
        if json.loads(response.read()) != {}:
            raise ValueError("the server did not accept the points")

    return send


def of_mlflow(server: CountingServer, run_id: str) -> Send:
    """Returns what sends points through MLflow's client."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(server.url)
    return lambda points: client.log_batch(run_id, [Metric(*point) for point in points])


def ours(server: CountingServer, run_id: str) -> Send:
    """Returns what sends points as the daemon does, in this thread."""
    from mlflow_sysmetrics.daemon.delivery.points import Point
    from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
    from mlflow_sysmetrics.daemon.delivery.sender import Sender
    from mlflow_sysmetrics.daemon.delivery.sink import open_sink
    from mlflow_sysmetrics.runtime.clock import SystemClock

    sender = Sender(server.url, open_sink, SystemClock())
    queue = RunQueue(run_id, 0, 10)

    def send(points: Points) -> None:
        sender.append(queue, [Point(*point) for point in points])
        sender.expedite([queue])
        while sender.send_next():
            pass
        counts = sender.counts()
        if counts.pending:
            raise ValueError(f"the server did not accept the points: {counts.last_error}")

    return send


def measure_all(rounds: int) -> dict[int, dict[str, list[float]]]:
    """Returns what `measure` finds for each number of points per request."""
    with counting_server() as server:
        return {size: measure(server, size, rounds) for size in SIZES}


def measure(server: CountingServer, size: int, rounds: int) -> dict[str, list[float]]:
    """Returns the milliseconds of CPU per 1,000 points of each round, by side."""
    from mlflow import MlflowClient

    client = MlflowClient(server.url)
    sides = {
        name: make(server, client.create_run("0").info.run_id)
        for name, make in ((BARE, bare), (MLFLOW, of_mlflow), (OURS, ours))
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    turn = 0
    for _ in range(rounds):
        for name, send in sides.items():
            turn += 1
            requests = [_points(turn, number, size) for number in range(_POINTS_PER_TURN // size)]
            send(_points(turn, -1, size))  # the connection may have been closed meanwhile
            began = time.process_time()
            for points in requests:
                send(points)
            found[name].append((time.process_time() - began) * 1e6 / (size * len(requests)))
    return found


def _points(turn: int, number: int, size: int) -> Points:
    """Returns points of the default series, each of another time."""
    return [
        (
            f"system/a_metric_of_usual_length_{index % SERIES}_megabytes",
            1234.567 + number,
            1_700_000_000_000 + 1000 * (turn * _POINTS_PER_TURN + number * size + index // SERIES),
            number,
        )
        for index in range(size)
    ]


def table(found: Mapping[int, Mapping[str, Sequence[float]]]) -> Table:
    """Returns the table of what `measure` found for each size."""
    rows = []
    for size, of_size in found.items():
        cells = {name: Cell(values) for name, values in of_size.items()}
        ratio = _ratio(of_size)
        verdict = f"at most {LIMIT:g}: {'yes' if ratio <= LIMIT else 'NO'}" if size == SERIES else ""
        rows.append((str(size), *(cell.show() for cell in cells.values()), figure(ratio), verdict))
    heading = ("points per request", BARE, MLFLOW, OURS, f"ours / {BARE}", "")
    return Table("CPU per 1,000 points over REST, ms", heading, rows)


def _ratio(of_size: Mapping[str, Sequence[float]]) -> float:
    """Returns the median of the ratios of each round: the load of the machine changes between them."""
    return Cell([ours / bare for ours, bare in zip(of_size[OURS], of_size[BARE], strict=True)]).median


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="CPU time of delivering points over REST.")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side")
    parser.add_argument("--json", action="store_true", help="all values, as JSON")
    options = parser.parse_args()
    found = measure_all(options.rounds)
    if options.json:
        print(json.dumps({"machine": machine(), "delivery": found}))
        return
    print("\n".join(f"- {name}: {value}" for name, value in machine().items()), "\n")
    print(table(found))
    print(NOISE)


if __name__ == "__main__":
    main()
