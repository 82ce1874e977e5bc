"""CPU of many runs at a point of each series a second, and what the journal costs them.

Usage::

    python benchmarks/growth.py [--runs 64,256,1000] [--seconds 30] [--repetitions 3] [--json]

Each measurement is a fresh interpreter that attaches runs of a counting server and does nothing else. It
counts the CPU time of all its threads, and the reads of its journal: on a server that answers, there is
nothing to be read back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from counting_server import counting_server
from tables import NOISE, Cell, Table, figure, machine

RUNS = (64, 256, 1000)
ON, OFF = "journal", "no journal"
MOST_FOR_THE_JOURNAL = 1.15  # times the CPU without it
MOST_TO_THE_LAST = 4.2  # times the CPU of 256 runs, for 1000
_BASE, _MANY = 256, 1000
_SETTLES_SECONDS = 12.0  # the first sends are early ones
_MARGIN_SECONDS = 120.0  # of a worker, to import and to attach


def work(url: str, runs: int, seconds: float, *, journal: bool) -> dict[str, Any]:
    """Attaches runs and returns what they cost."""
    from mlflow import MlflowClient

    from mlflow_sysmetrics.daemon.daemon import Daemon
    from mlflow_sysmetrics.daemon.journal.journal import Journal
    from mlflow_sysmetrics.settings import Settings

    reads = 0
    read = Journal.read

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*arguments)

    Journal.read = counted  # type: ignore[method-assign]
    client = MlflowClient(url)
    run_ids = [client.create_run("0").info.run_id for _ in range(runs)]
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            sampling_interval=1, samples_before_logging=1, spool_dir=directory if journal else "off"
        )
        daemon = Daemon(settings)
        for run_id in run_ids:
            daemon.attach(run_id, url, settings, started_at=0)
        time.sleep(_SETTLES_SECONDS)
        before, began = daemon.status(), time.process_time()
        time.sleep(seconds)
        cpu, after = time.process_time() - began, daemon.status()
    return {
        "cpu": cpu,
        "points": after.points_delivered - before.points_delivered,
        "ticks": after.ticks - before.ticks,
        "dropped": after.points_dropped,
        "reads": reads,
    }


def measure_all(
    numbers: Sequence[int], seconds: float, repetitions: int
) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Returns what `measure` finds for each number of runs and each side; the sides alternate."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for runs in numbers:
        sides: dict[str, list[dict[str, Any]]] = {OFF: [], ON: []}
        for repetition in range(repetitions):
            for side in (OFF, ON) if repetition % 2 == 0 else (ON, OFF):
                sides[side].append(measure(runs, seconds, journal=side == ON))
        found[runs] = sides
    return found


def measure(runs: int, seconds: float, *, journal: bool) -> dict[str, Any]:
    """Returns what `work` finds in a fresh interpreter, on a fresh server."""
    with counting_server() as server:
        command = [
            sys.executable,
            __file__,
            "--worker",
            server.url,
            str(runs),
            str(seconds),
            str(int(journal)),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + _MARGIN_SECONDS,
            env=os.environ | {"MLFLOW_SYSMETRICS_FLUSH_TIMEOUT": "0"},
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(found: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]], seconds: float) -> Table:
    """Returns the table of what `measure` found, by number of runs and side."""
    rows = []
    of_256: Cell | None = None
    for runs, sides in found.items():
        cells = {side: Cell([once["cpu"] for once in repetitions]) for side, repetitions in sides.items()}
        pairs = zip(sides[ON], sides[OFF], strict=True)
        journal = Cell([on["cpu"] / off["cpu"] for on, off in pairs]).median
        growth = ""
        if of_256 is not None:
            ratio = cells[ON].median / of_256.median
            growth = _verdict(ratio, MOST_TO_THE_LAST) if runs == _MANY else figure(ratio)
        of_256 = cells[ON] if runs == _BASE else of_256
        rows.append(
            (
                str(runs),
                cells[OFF].show(),
                cells[ON].show(),
                _verdict(journal, MOST_FOR_THE_JOURNAL),
                growth,
                figure(Cell([1e6 * once["cpu"] / max(once["points"], 1) for once in sides[ON]]).median),
                str(max(once["reads"] for once in sides[ON])),
                str(max(once["dropped"] for side in sides.values() for once in side)),
            )
        )
    heading = (
        *("runs", f"CPU without a journal, s in {seconds:g} s", "with one", "with / without"),
        *(f"against {_BASE} runs", "microseconds per point", "journal reads", "points dropped"),
    )
    return Table("Many runs at a point of each series a second, over REST", heading, rows)


def _verdict(ratio: float, limit: float) -> str:
    return f"{figure(ratio)}, at most {limit:g}: {'yes' if ratio <= limit else 'NO'}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="CPU of many runs at a point of each series a second.")
    parser.add_argument(
        "--runs", default=",".join(map(str, RUNS)), help="numbers of runs, separated by commas"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each is observed")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each side")
    parser.add_argument("--json", action="store_true", help="all values, as JSON")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        url, runs, seconds, journal = options.worker
        print(json.dumps(work(url, int(runs), float(seconds), journal=journal == "1")), flush=True)
        os._exit(0)  # the runs go on; nothing of them is to be delivered
    numbers = [int(number) for number in options.runs.split(",")]
    found = measure_all(numbers, options.seconds, options.repetitions)
    if options.json:
        print(json.dumps({"machine": machine(), "growth": found}))
        return
    print("\n".join(f"- {name}: {value}" for name, value in machine().items()), "\n")
    print(table(found, options.seconds))
    print(NOISE)


if __name__ == "__main__":
    main()
