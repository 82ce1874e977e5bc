"""What a monitor costs a training that does nothing, each product at its own defaults.

As a program::

    python benchmarks/idle.py 240
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from counting_server import counting_server
from tables import Cell, Table, figure
from variants import BUILT_IN, OURS, Variant, fresh_worker

OFF = Variant("off", {"MLFLOW_RUN_CONTEXT_PROVIDER": "none", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"})
_SIDES = (OFF, BUILT_IN, OURS)
# What the start of a run sets off has ended by then: first points, recovery, facts that are found later.
_SETTLE_SECONDS = 15.0
_SECONDS_PER_HOUR = 3600
_MEGABYTE = 1e6


def idle(seconds: float, settle_seconds: float) -> dict[str, Any]:
    """Starts a run, sleeps in it, and returns what that cost; in the worker."""
    import mlflow

    before = _resident_bytes()
    mlflow.start_run()
    time.sleep(settle_seconds)
    before_by_thread = _by_thread()
    usage, cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.process_time(), time.perf_counter()
    time.sleep(seconds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - usage.ru_nvcsw - 1  # the sleep is ours
    by_thread = _by_thread()
    for name, counts in before_by_thread.items():
        if name in by_thread:
            by_thread[name] = [after - count for after, count in zip(by_thread[name], counts, strict=True)]
    found = {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "switches": switches,
        "by_thread": by_thread,
        "threads": threading.active_count(),
        "resident_bytes_added": _resident_bytes() - before,
    }
    mlflow.end_run()
    return found


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _by_thread() -> dict[str, list[float]]:
    """Returns the voluntary switches and the CPU seconds of each thread so far, by its name in Python."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    counts: dict[str, list[float]] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            status = (task / "status").read_text(encoding="utf-8")
            nanoseconds = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except OSError:  # it has just ended
            continue
        switches = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        before = counts.get(name := names.get(int(task.name), "other"), [0, 0])
        counts[name] = [before[0] + switches, before[1] + nanoseconds / 1e9]
    return counts


def measure(seconds: float) -> dict[str, Any]:
    """Returns what each side costs; all sides idle at the same time, so that they share each disturbance."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        waiting = []
        # What other programs have left on this machine is not delivered meanwhile.
        spool = stack.enter_context(tempfile.TemporaryDirectory())
        for side in _SIDES:
            server = stack.enter_context(counting_server())
            side_here = side.with_environ(MLFLOW_SYSMETRICS_SPOOL_DIR=spool)
            worker = stack.enter_context(fresh_worker(side_here, server.url))
            ask = threading.Thread(
                target=lambda side=side, worker=worker: found.update(
                    {
                        side.name: worker.ask(
                            "idle", takes=seconds, seconds=seconds, settle_seconds=_SETTLE_SECONDS
                        )
                    }
                )
            )
            ask.start()
            waiting.append(ask)
        for ask in waiting:
            ask.join()
    return found


def table(found: dict[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    rows = []
    for name, one in found.items():
        share = one["cpu_seconds"] / one["wall_seconds"]
        woken = ", ".join(
            f"{thread} {figure(switches / one['wall_seconds'])} ({figure(100 * cpu / one['wall_seconds'])} %)"
            for thread, (switches, cpu) in sorted(one["by_thread"].items())
            if switches > 1
        )
        rows.append(
            (
                name,
                figure(100 * share),
                figure(_SECONDS_PER_HOUR * share),
                figure(one["switches"] / one["wall_seconds"]),
                str(one["threads"]),
                figure(one["resident_bytes_added"] / _MEGABYTE),
                woken,
            )
        )
    return Table(
        f"An idle training, {Cell([one['wall_seconds'] for one in found.values()]).median:.0f} s, "
        "each side at its own defaults",
        (
            "",
            "% of a core",
            "CPU s/h",
            "voluntary switches/s",
            "threads",
            "RSS added, MB",
            "by thread: switches/s (CPU)",
        ),
        rows,
    )


if __name__ == "__main__":
    measured = measure(float(sys.argv[1]) if len(sys.argv) > 1 else 240.0)
    print(json.dumps(measured, indent=1) if "--json" in sys.argv else table(measured))
