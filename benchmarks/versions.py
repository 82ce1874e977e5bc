"""Compares the cost of an ordinary tick in two checkouts of this repository, measured alternately.

Usage::

    git worktree add /tmp/before main
    python benchmarks/versions.py /tmp/before . [--rounds 200] [--ticks 20] [--seconds 60] [--json]

Two processes take turns, in short rounds: some ticks of all default collectors in one, then in the other.
Noise makes single rounds slower, hardly ever faster, so the fastest and the median round count. Then both
sample for some seconds side by side as they do in a program, with all their threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import Cell, Table, ratio

MICROSECONDS = 1e6
WARM_UP_TICKS = 50


class Side:
    """A process that has imported one checkout, and measures when asked."""

    def __init__(self, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(checkout.resolve() / "src")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stdin: Any = self._process.stdin
        self._stdout: Any = self._process.stdout

    def begin(self, **question: object) -> None:
        """Asks a question."""
        self._stdin.write(json.dumps(question) + "\n")
        self._stdin.flush()

    def answer(self) -> Any:
        """Waits for the answer."""
        return json.loads(self._stdout.readline())

    def ask(self, **question: object) -> Any:
        """Asks, and waits for the answer."""
        self.begin(**question)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def measure(before: Path, after: Path, *, rounds: int, ticks: int, seconds: float) -> dict[str, Any]:
    """Returns CPU seconds per tick of each round, and of sampling as a whole, by side."""
    sides = {"before": Side(before), "after": Side(after)}
    try:
        for side in sides.values():
            side.ask(ticks=WARM_UP_TICKS)
        spent: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in sides if number % 2 else reversed(sides):
                spent[name].append(sides[name].ask(ticks=ticks))
        for side in sides.values():
            side.begin(seconds=seconds)
        whole = {name: side.answer() for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.close()
    return {"rounds": spent, "whole": whole, "ticks": ticks, "seconds": seconds}


def table(found: dict[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    before, after = ([one * MICROSECONDS for one in found["rounds"][name]] for name in ("before", "after"))
    pairs = [new / old for old, new in zip(before, after, strict=True)]
    whole = {name: one["cpu_seconds"] * MICROSECONDS / one["ticks"] for name, one in found["whole"].items()}
    return Table(
        f"CPU of a tick of all default collectors in us, {len(before)} rounds of {found['ticks']} ticks",
        ("", "before", "after", "after / before"),
        [
            ("fastest round", f"{min(before):.1f}", f"{min(after):.1f}", f"{min(after) / min(before):.3f}"),
            ("median round", Cell(before).show(), Cell(after).show(), f"{statistics.median(pairs):.3f}"),
            (
                f"the process, all threads, {found['seconds']:g} s with a tick a second",
                f"{whole['before']:.1f}",
                f"{whole['after']:.1f}",
                ratio(whole["after"], whole["before"]),
            ),
        ],
    )


def _serve(source: str) -> None:
    sys.path.insert(0, source)
    from tick_cost import our_probes, our_tick

    from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
    from mlflow_sysmetrics.samples import DEFAULT_FAMILIES

    tick, _ = our_tick(
        our_probes([one for one in load_classes(COLLECTORS) if one.family in DEFAULT_FAMILIES])
    )
    for line in sys.stdin:
        question = json.loads(line)
        answer = _whole(question["seconds"]) if "seconds" in question else _round(tick, question["ticks"])
        print(json.dumps(answer), flush=True)


def _round(tick: Callable[[], None], ticks: int) -> float:
    """Returns the CPU seconds of a tick, on average."""
    before = time.thread_time()
    for _ in range(ticks):
        tick()
    return (time.thread_time() - before) / ticks


def _whole(seconds: float) -> dict[str, float]:
    """Samples as a program does, for a server that takes everything."""
    from mlflow_sysmetrics.daemon.daemon import Daemon
    from mlflow_sysmetrics.settings import Settings

    class Nowhere:
        """A sink that takes everything."""

        def send(self, *_: object) -> None:
            """Takes points."""

        def close(self) -> None:
            """Does nothing."""

    with tempfile.TemporaryDirectory() as spool:
        settings = Settings(sampling_interval=1, spool_dir=spool)
        daemon = Daemon(settings, open_sink=lambda _: Nowhere())  # type: ignore[arg-type, return-value]
        series = daemon.attach("run", "uri", settings, started_at=0)
        time.sleep(2)  # the first ticks open files for the first time
        ticks, before = daemon.status().ticks, time.process_time()
        time.sleep(seconds)
        found = {"ticks": daemon.status().ticks - ticks, "cpu_seconds": time.process_time() - before}
        daemon.detach(series, 5)
        daemon.end()
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares the cost of an ordinary tick in two checkouts.")
    add = parser.add_argument
    add("before", type=Path, help="a checkout")
    add("after", type=Path, help="another one")
    add("--rounds", type=int, default=200, help="rounds of each side")
    add("--ticks", type=int, default=20, help="ticks of a round")
    add("--seconds", type=float, default=60, help="how long both sample with all their threads")
    add("--json", action="store_true", help="print all measurements instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _serve(sys.argv[2])
    else:
        options = _options()
        found = measure(
            options.before, options.after, rounds=options.rounds, ticks=options.ticks, seconds=options.seconds
        )
        print(json.dumps(found) if options.json else table(found))
