"""Time of what the journal does: a point of 24 series appended, acknowledged, cleared; a full one compacted.

Usage::

    python benchmarks/journal_append.py [--appends 20000] [--directory DIRECTORY]

The disk counts: by default it is the one of the temporary directory.
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
BOUND_MICROSECONDS = (
    50  # what appending a point may take: at one a second, a twentieth of a thousandth of a core
)
SERIES = [f"system/gpu_{number}_memory_usage_percentage" for number in range(24)]
MAX_BYTES = 8_000_000  # an eighth of the default, so that compacting takes a second; figures are per megabyte
TEN_SECONDS = 10_000  # between two points by default


def timed(action: Callable[[], object]) -> float:
    """Returns the seconds that an action takes."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def point(number: int) -> dict[str, float]:
    """Returns values as they come: three decimals, all different."""
    chance = random.Random(number)  # noqa: S311 - no secret hangs on it
    return {key: round(chance.uniform(0, 100), 3) for key in SERIES}


def append(journal: Journal, run: int, first: int, points: list[dict[str, float]]) -> None:
    """Appends points that follow each other."""
    for index, values in enumerate(points, first):
        journal.append(run, index * len(SERIES), index * TEN_SECONDS, values)


def measure(appends: int, directory: Path | None = None) -> dict[str, Any]:
    """Returns the seconds of each append, acknowledgement and clearing, and what a compaction did."""
    from mlflow_sysmetrics.daemon.journal.journal import Journal

    points = [point(number) for number in range(1000)]
    spent: dict[str, list[float]] = {"append": [], "acknowledge": [], "clear": []}
    with tempfile.TemporaryDirectory(dir=directory) as place:
        journal = Journal.create(Path(place), MAX_BYTES)
        run = journal.register("0" * 32, "http://mlflow:5000", 0)
        for index in range(appends):
            values, after = [points[index % len(points)]], (index + 1) * len(SERIES)
            spent["append"].append(timed(lambda i=index, v=values: append(journal, run, i, v)))
            if index % 10 == 9:  # noqa: PLR2004 - as a server that was away for a minute and a half
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
    parser.add_argument("--appends", type=int, default=20_000, help="points that are appended")
    parser.add_argument("--directory", type=Path, help="where the journal lies for the time")
    options = parser.parse_args()
    print(table(measure(options.appends, options.directory)))


if __name__ == "__main__":
    main()
