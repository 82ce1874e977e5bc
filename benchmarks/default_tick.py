"""CPU time of one tick of all default collectors, in a process without and with many children."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tables import Cell, Table, figure
from tick_cost import (
    MICROSECONDS,
    NO_SERVER,
    PAUSE_SECONDS,
    TICKS_PER_WINDOW,
    built_in_tick,
    our_probes,
    our_tick,
)
from variants import BUILT_IN, fresh_worker

if TYPE_CHECKING:
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.samples import Sample

CHILDREN = (0, 200)
# Limits of a tick without children: of the mean, compared with the built-in's tick of eight metrics in the
# same process, and of the 99th percentile, compared with the median.
_MOST_BUILT_INS, _MOST_MEDIANS = 1.5, 3.0


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

    def read(self, now: float, *, whole: bool = True) -> Sequence[Sample]:
        """Returns the samples of the probe."""
        before = time.thread_time()
        samples = self._probe.read(now, whole=whole)
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
        built_in, _ = built_in_tick()
        whole, theirs = [], []
        for _ in range(count):
            for one, spent in ((tick, whole), (built_in, theirs)):
                before = time.thread_time()
                one()
                spent.append(time.thread_time() - before)
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
        "built_in_cpu_seconds": theirs[TICKS_PER_WINDOW:],
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
    children, built_in = found["children"], _cell(found["built_in_cpu_seconds"])
    rows = [_row(name, _cell(values), found["health"][name]) for name, values in found["collectors"].items()]
    due = _cell(found["cpu_seconds"][::TICKS_PER_WINDOW])  # what only counts is read when a point is due
    shares = (
        ("mean / the built-in's median", whole.mean / built_in.median, _MOST_BUILT_INS),
        ("99 % / median of ticks at which a point is due", whole.p99 / due.median, _MOST_MEDIANS),
    )
    verdict = ", ".join(
        f"{name} {share:.2f}" + ("" if children else f" (at most {most}: {'yes' if share <= most else 'NO'})")
        for name, share, most in shares
    )
    parent = f", the parent of {children} sleeping children" if children else ""
    return Table(
        f"One tick of everything read by default, {len(found['metrics'])} series{parent}; "
        f"{len(whole.values)} ticks, CPU of the thread in microseconds",
        ("", "mean", "median", "99 %", "most", ""),
        [
            _row("a tick", whole, verdict),
            _row("of these, at which a point is due", due, ""),
            _row("the built-in's eight", built_in, ""),
            *rows,
        ],
    )


def _cell(seconds: Sequence[float]) -> Cell:
    return Cell([one * MICROSECONDS for one in seconds])


def _row(name: str, cell: Cell, last: str) -> tuple[str, ...]:
    return (name, *map(figure, (cell.mean, cell.median, cell.p99, max(cell.values))), last)
