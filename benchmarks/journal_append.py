"""Duration of journal operations: append, acknowledge and clear a point of 24 series; compact a full journal.

Usage::

    python benchmarks/journal_append.py [--appends 20000] [--directory DIRECTORY]

The disk matters; by default it is that of the temporary directory.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import Cell, Table, figure

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.journal.journal import Journal

MICROSECONDS = 1e6
BOUND_MICROSECONDS = 50  # budget of an append: at one per second, 0.005 % of a core
SERIES = [f"system/gpu_{number}_memory_usage_percentage" for number in range(24)]
MAX_BYTES = 8_000_000  # an eighth of the default, so that compaction takes a second
TEN_SECONDS = 10_000  # milliseconds between two points by default


def timed(action: Callable[[], object]) -> float:
    """Returns the duration of an action in seconds."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def point(number: int) -> dict[str, float]:
    """Returns realistic values: three decimals, all different."""
    chance = random.Random(number)  # noqa: S311 - not for secrets
    return {key: round(chance.uniform(0, 100), 3) for key in SERIES}


def append(journal: Journal, run: int, first: int, points: list[dict[str, float]]) -> None:
    """Appends consecutive points."""
    for index, values in enumerate(points, first):
        journal.append(run, index * len(SERIES), index * TEN_SECONDS, values)


def measure(appends: int, directory: Path | None = None) -> dict[str, Any]:
    """Returns the seconds of each append, acknowledgement and clearing, and the result of a compaction."""
    from mlflow_sysmetrics.daemon.journal.journal import Journal

    points = [point(number) for number in range(1000)]
    spent: dict[str, list[float]] = {"append": [], "acknowledge": [], "clear": []}
    with tempfile.TemporaryDirectory(dir=directory) as place:
        journal = Journal.create(Path(place), MAX_BYTES)
        run = journal.register("0" * 32, "http://mlflow:5000", 0)
        for index in range(appends):
            values, after = [points[index % len(points)]], (index + 1) * len(SERIES)
            spent["append"].append(timed(lambda i=index, v=values: append(journal, run, i, v)))
            if index % 10 == 9:  # like a server that was down for a minute and a half
                spent["acknowledge"].append(timed(lambda a=after: journal.acknowledge(run, a)))
                spent["clear"].append(timed(journal.clear))
        index = appends
        while not journal.is_full:
            append(journal, run, index, [points[index % len(points)]])
            index += 1
        before, dropped = journal.size, {}
        seconds = timed(lambda: dropped.update(journal.compact()))
        compaction = {"seconds": seconds, "before": before, "after": journal.size, "dropped": dropped}
        journal.close(delete=True)
    return {"seconds": spent, "compaction": compaction}


def table(found: dict[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    rows = []
    for name, seconds in found["seconds"].items():
        cell = Cell([one * MICROSECONDS for one in seconds])
        told = f"at most {BOUND_MICROSECONDS}: {'yes' if cell.median <= BOUND_MICROSECONDS else 'NO'}"
        cells = [figure(one) for one in (cell.mean, cell.median, cell.p99, max(cell.values))]
        rows.append((name, *cells, told if name == "append" else ""))
    compaction = found["compaction"]
    megabytes = compaction["before"] / 1e6
    title = (
        f"The journal, points of {len(SERIES)} series, microseconds; a full one of {figure(megabytes)} MB is "
        f"compacted to {figure(compaction['after'] / 1e6)} MB in {figure(compaction['seconds'])} s"
    )
    return Table(title, ("", "mean", "median", "99 %", "most", ""), rows)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measures the journal.")
    parser.add_argument("--appends", type=int, default=20_000, help="number of points to append")
    parser.add_argument("--directory", type=Path, help="directory of the journal")
    options = parser.parse_args()
    print(table(measure(options.appends, options.directory)))


if __name__ == "__main__":
    main()
