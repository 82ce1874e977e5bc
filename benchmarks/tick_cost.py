"""CPU time of one tick: the same eight host metrics through our sampler and through MLflow's monitors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tables import Cell, Table, ratio
from variants import BUILT_IN, fresh_worker

_MICROSECONDS = 1e6
_TICKS_PER_WINDOW = 10  # our default; that tick also makes points and hands them to the sender
_NO_SERVER = "http://127.0.0.1:9"  # the discard port: nothing is sent
_PAUSE_SECONDS = 0.01  # lets the kernel's counters move on; CPU time, not wall time, is measured


class SecondHand:
    """A clock that goes on by one second per tick, so that ticks in quick succession do all their work."""

    def __init__(self) -> None:
        self.seconds = 0

    def monotonic(self) -> float:
        """Returns seconds."""
        return float(self.seconds)

    def wall(self) -> int:
        """Returns milliseconds."""
        return self.seconds * 1000


def our_tick() -> tuple[Callable[[], None], Callable[[], set[str]]]:
    """Returns our tick with one run attached, and what tells the metrics that it read."""
    from mlflow_sysmetrics.collectors import COLLECTORS  # noqa: PLC0415 - only the worker needs the product
    from mlflow_sysmetrics.daemon.feed import Feed  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.points import Outbox  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.probe import Probe  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.sampler import Sampler  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.sender import Sender  # noqa: PLC0415
    from mlflow_sysmetrics.daemon.sink import open_sink  # noqa: PLC0415
    from mlflow_sysmetrics.host import Host  # noqa: PLC0415
    from mlflow_sysmetrics.samples import Family  # noqa: PLC0415
    from mlflow_sysmetrics.settings import Settings  # noqa: PLC0415

    clock = SecondHand()
    host_metrics = [collector for collector in COLLECTORS if collector.family is not Family.GPU]
    sampler = Sampler([Probe(collector, Host()) for collector in host_metrics], clock)
    settings = Settings(sampling_interval=1, samples_before_logging=_TICKS_PER_WINDOW)
    outbox = Outbox("run", 0, settings.send_interval)
    sampler.add(Feed(("", "run"), settings, Sender("", open_sink, clock), outbox))

    def tick() -> None:
        clock.seconds += 1
        sampler.tick()

    return tick, lambda: {point.key.removeprefix("system/") for point in outbox.points}


def built_in_tick() -> tuple[Callable[[], None], Callable[[], set[str]]]:
    """Returns a tick of MLflow's monitors of host metrics, and what tells the metrics that it read."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # noqa: PLC0415 - as above
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor  # noqa: PLC0415
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor  # noqa: PLC0415

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]

    def tick() -> None:
        for monitor in monitors:
            monitor.collect_metrics()

    return tick, lambda: {key for monitor in monitors for key in monitor.metrics}


def ticks(count: int) -> dict[str, Any]:
    """Does ticks of both sides by turns, in the worker; returns the CPU seconds of each."""
    sides = {"ours": our_tick(), "built-in": built_in_tick()}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(count):
        for name in sides if number % 2 else reversed(sides):
            before = time.process_time()
            sides[name][0]()
            spent[name].append(time.process_time() - before)
            time.sleep(_PAUSE_SECONDS)
    # Without the first ones, which open what was never opened.
    warm = {name: values[_TICKS_PER_WINDOW:] for name, values in spent.items()}
    return {"cpu_seconds": warm, "metrics": {name: sorted(seen()) for name, (_, seen) in sides.items()}}


def measure(count: int) -> dict[str, Any]:
    """Returns the CPU seconds of each tick by side, and the metrics that both have read.

    Raises:
        AssertionError: the two sides did not read the same metrics.
    """
    with fresh_worker(BUILT_IN, tracking_uri=_NO_SERVER) as worker:
        found = worker.ask("ticks", count=count)
    if found["metrics"]["ours"] != found["metrics"]["built-in"]:
        raise AssertionError(f"not the same metrics: {found['metrics']}")
    return {"cpu_seconds": found["cpu_seconds"], "metrics": found["metrics"]["ours"]}


def table(found: dict[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    built_in, ours = (
        Cell([seconds * _MICROSECONDS for seconds in found["cpu_seconds"][name]])
        for name in ("built-in", "ours")
    )
    return Table(
        f"One tick of {len(found['metrics'])} host metrics, {len(ours.values)} ticks of each side",
        ("", "built-in", "ours", "built-in / ours"),
        [
            ("CPU, microseconds, median", built_in.show(), ours.show(), ratio(built_in.median, ours.median)),
            (
                "CPU, microseconds, mean",
                built_in.show_mean(),
                ours.show_mean(),
                ratio(built_in.mean, ours.mean),
            ),
        ],
    )
