"""CPU time of one tick: MLflow's host metrics, read by MLflow's monitors and by our collectors.

Ours are the collectors that yield MLflow's metrics. They cannot be restricted to these, so ours reads more.
Counters are read when a point is due, at every tenth tick: the mean is what a run costs, and one row is what
a tick costs that reads everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from operator import getitem
from typing import TYPE_CHECKING, Any

from tables import Cell, Table, ratio
from variants import BUILT_IN, fresh_worker

if TYPE_CHECKING:
    from mlflow_sysmetrics.collectors import Collector
    from mlflow_sysmetrics.daemon.sampling.probe import Probe

MICROSECONDS = 1e6
TICKS_PER_WINDOW = 10  # our default; that tick also makes points and hands them to the sender
NO_SERVER = "http://127.0.0.1:9"  # the discard port: nothing is sent
PAUSE_SECONDS = 0.01  # lets the kernel's counters advance; CPU time, not wall time, is measured


class SecondHand:
    """A clock that advances one second per tick, so that ticks in quick succession do all their work."""

    def __init__(self) -> None:
        self._seconds = [0.0]
        # A function of C, as the system's clock has: one of Python would take longer than some collectors.
        self.monotonic: Callable[[], float] = partial(getitem, self._seconds, 0)

    def wall(self) -> int:
        """Returns milliseconds."""
        return round(self._seconds[0] * 1000)

    def advance(self) -> None:
        """Moves on by a second."""
        self._seconds[0] += 1.0


def our_probes(collectors: Collection[type[Collector]]) -> list[Probe]:
    """Returns probes of collectors on this machine."""
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.machine.host import Host

    host = Host()  # one for all, as in the daemon: they share what they read
    return [Probe(collector, host) for collector in collectors]


def our_tick(probes: Collection[Probe]) -> tuple[Callable[[], None], Callable[[], set[str]]]:
    """Returns our tick with one run attached, and a function that returns the metrics it has read."""
    from mlflow_sysmetrics.daemon.delivery.inbox import Channel
    from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
    from mlflow_sysmetrics.daemon.delivery.sender import Sender
    from mlflow_sysmetrics.daemon.delivery.sink import open_sink
    from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
    from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
    from mlflow_sysmetrics.settings import Settings

    clock = SecondHand()
    sampler = Sampler(list(probes), clock)
    settings = Settings(sampling_interval=1, samples_before_logging=TICKS_PER_WINDOW)
    queue = RunQueue("run", 0, settings.send_interval)
    sampler.add(RunSeries(("", "run"), settings, Channel(Sender("", open_sink, clock), queue)))

    def tick() -> None:
        clock.advance()
        sampler.tick()

    return tick, lambda: {point.key.removeprefix("system/") for point in queue.peek(1000).points}


def built_in_tick() -> tuple[Callable[[], None], Callable[[], set[str]]]:
    """Returns a tick of MLflow's host monitors, and a function that returns the metrics it has read."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]

    def tick() -> None:
        for monitor in monitors:
            monitor.collect_metrics()

    return tick, lambda: {key for monitor in monitors for key in monitor.metrics}


def ticks(count: int) -> dict[str, Any]:
    """Runs ticks of both sides alternately, in the worker; returns CPU seconds and metrics."""
    from mlflow_sysmetrics.collectors import COLLECTORS, load_classes

    built_in, their_metrics = built_in_tick()
    built_in()
    wanted = their_metrics()
    carriers = [one for one in load_classes(COLLECTORS) if wanted & {metric.name for metric in one.metrics}]
    ours, our_metrics = our_tick(our_probes(carriers))
    sides = {"ours": ours, "built-in": built_in}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(count):
        for name in sides if number % 2 else reversed(sides):
            before = time.process_time()
            sides[name]()
            spent[name].append(time.process_time() - before)
            time.sleep(PAUSE_SECONDS)
    return {
        # Without the first ticks, which open files for the first time.
        "cpu_seconds": {name: values[TICKS_PER_WINDOW:] for name, values in spent.items()},
        "metrics": {"ours": sorted(our_metrics()), "built-in": sorted(their_metrics())},
        "collectors": [one.__name__ for one in carriers],
    }


def measure(count: int) -> dict[str, Any]:
    """Returns the CPU seconds of each tick by side, and the metrics of each side.

    Raises:
        AssertionError: ours lacks a metric of the built-in.
    """
    with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
        found: dict[str, Any] = worker.ask("ticks", count=count)
    if lacking := set(found["metrics"]["built-in"]) - set(found["metrics"]["ours"]):
        raise AssertionError(f"ours has no {', '.join(sorted(lacking))}: {found['metrics']}")
    return found


def table(found: dict[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    built_in, ours = (
        Cell([seconds * MICROSECONDS for seconds in found["cpu_seconds"][name]])
        for name in ("built-in", "ours")
    )
    due = Cell([one * MICROSECONDS for one in found["cpu_seconds"]["ours"][::TICKS_PER_WINDOW]])
    metrics = found["metrics"]
    return Table(
        f"One tick of {len(metrics['built-in'])} host metrics, {len(ours.values)} ticks of each side; "
        f"ours: {', '.join(found['collectors'])}",
        ("", "built-in", "ours", "built-in / ours"),
        [
            ("CPU, microseconds, median", built_in.show(), ours.show(), ratio(built_in.median, ours.median)),
            (
                "CPU, microseconds, mean",
                built_in.show_mean(),
                ours.show_mean(),
                ratio(built_in.mean, ours.mean),
            ),
            (
                "CPU, microseconds, median of ticks at which a point is due",
                built_in.show(),
                due.show(),
                ratio(built_in.median, due.median),
            ),
            ("metrics read", *(str(len(metrics[name])) for name in ("built-in", "ours")), ""),
        ],
    )
