"""CPU time of one tick of all default collectors, in a process without and with many children."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tables import Cell, Table, figure
from tick_cost import MICROSECONDS, NO_SERVER, PAUSE_SECONDS, TICKS_PER_WINDOW, our_probes, our_tick
from variants import BUILT_IN, fresh_worker

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.samples import Sample

CHILDREN = (0, 200)
# Budget of a tick: 0.25 ms per second is a 4000th of a core, which no training notices.
_MOST_MICROSECONDS = {0: 250, 200: 1000}


class TimedProbe:
    """Wraps a probe and records the CPU time of its readings.

    Args:
        probe: the wrapped probe.
    """

    def __init__(self, probe: Probe) -> None:
        self.name = probe.name
        self.cpu_seconds: list[float] = []
        self._probe = probe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probe, name)

    def read(self, now: float) -> Sequence[Sample]:
        """Returns the samples of the probe."""
        before = time.thread_time()
        samples = self._probe.read(now)
        self.cpu_seconds.append(time.thread_time() - before)
        return samples


@contextmanager
def sleeping_children(count: int) -> Iterator[None]:
    """Forks idle children for the duration of a ``with`` block."""
    wait, keep = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(keep)
            os.read(wait, 1)  # returns when the parent exits, for whatever reason
            os._exit(0)
        children.append(child)
    os.close(wait)
    try:
        yield
    finally:
        os.close(keep)
        for child in children:
            os.waitpid(child, 0)


def default_ticks(count: int, children: int) -> dict[str, Any]:
    """Runs ticks in the worker; returns the CPU seconds of each, and of each collector in separate ticks."""
    from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
    from mlflow_sysmetrics.samples import DEFAULT_FAMILIES

    collectors = [one for one in load_classes(COLLECTORS) if one.family in DEFAULT_FAMILIES]
    with ExitStack() as stack:
        if children:
            stack.enter_context(sleeping_children(children))
        tick, metrics = our_tick(our_probes(collectors))
        whole = []
        for _ in range(count):
            before = time.thread_time()
            tick()
            whole.append(time.thread_time() - before)
            time.sleep(PAUSE_SECONDS)
        # In separate ticks, because reading the clock costs time too.
        timed: list[Any] = [TimedProbe(probe) for probe in our_probes(collectors)]
        tick, _ = our_tick(timed)
        for _ in range(count):
            tick()
            time.sleep(PAUSE_SECONDS)
    return {
        # Without the first ticks, which open files for the first time.
        "cpu_seconds": whole[TICKS_PER_WINDOW:],
        "first_cpu_seconds": whole[0],
        "collectors": {probe.name: probe.cpu_seconds[TICKS_PER_WINDOW:] for probe in timed},
        "health": {probe.name: probe.health for probe in timed},
        "metrics": sorted(metrics()),
    }


def measure(count: int, children: int) -> dict[str, Any]:
    """Returns the CPU seconds of each tick, and of each collector in it, in a fresh interpreter."""
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        found: dict[str, Any] = worker.ask("default_ticks", count=count, children=children)
    return {**found, "children": children}


def table(found: Mapping[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    whole = _cell(found["cpu_seconds"])
    children, most = found["children"], _MOST_MICROSECONDS[found["children"]]
    rows = [_row(name, _cell(values), found["health"][name]) for name, values in found["collectors"].items()]
    kept = {name: value <= most for name, value in (("mean", whole.mean), ("median", whole.median))}
    verdict = f"at most {most}: " + ", ".join(
        f"{name} {'yes' if good else 'NO'}" for name, good in kept.items()
    )
    parent = f", the parent of {children} sleeping children" if children else ""
    return Table(
        f"One tick of everything read by default, {len(found['metrics'])} series{parent}; "
        f"{len(whole.values)} ticks, CPU of the thread in microseconds",
        ("", "mean", "median", "99 %", "most", ""),
        [_row("the whole tick", whole, verdict), *rows],
    )


def _cell(seconds: Sequence[float]) -> Cell:
    return Cell([one * MICROSECONDS for one in seconds])


def _row(name: str, cell: Cell, last: str) -> tuple[str, ...]:
    return (name, *map(figure, (cell.mean, cell.median, cell.p99, max(cell.values))), last)
