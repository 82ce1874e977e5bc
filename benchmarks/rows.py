"""Rows in the tracking server's database: what a run of a day sends, ours and MLflow's built-in monitor.

    python benchmarks/rows.py [--hours 24] [--record 60] [--pictures DIRECTORY]

The clock is simulated; sampler, windows and points are the real ones, and the server only counts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import simulated_loads
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from simulated_loads import Readings
from tables import Table, figure

from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import Family, Metric, Sample
from mlflow_sysmetrics.settings import ADAPTIVE, CONSTANT, Settings

BUILT_IN_SERIES, BUILT_IN_SECONDS = 8, 10  # of a node without a GPU, at the defaults
HOUR = 3600
DRAWN = {
    "cpu_utilization_percentage": "CPU, %",
    "system_memory_usage_megabytes": "memory, MB",
    "disk_write_megabytes_per_second": "disk writes, MB/s",
    "process_open_files": "open files",
}
COLOURS = {CONSTANT: "#8c8c8c", ADAPTIVE: "#0b6fbf"}
STARTED_AT = 1_700_000_000_000


class SimulatedClock:
    """A clock that stands still until the simulation moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Returns seconds."""
        return self.seconds

    def wall(self) -> int:
        """Returns milliseconds since 1970."""
        return STARTED_AT + round(self.seconds * 1000)


class Playback:
    """A collector that yields simulated readings, one list per tick."""

    family: ClassVar[Family] = Family.CPU
    metrics: ClassVar[tuple[Metric, ...]] = ()
    readings: ClassVar[Readings] = iter(())
    gaps: Sequence[str] = ()

    def __init__(self, host: Host) -> None:
        del host

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the next reading."""
        del now
        yield from next(self.readings)


class Store:
    """Stands for channel and server: keeps what is sent."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.queue = SimpleNamespace(refused=None, started_at=STARTED_AT)

    def put(self, points: Sequence[Point]) -> None:
        """Keeps points."""
        self.points += points

    def put_tags(self, tags: dict[str, str], *, at_once: bool) -> None:
        """Ignores tags."""

    def end(self) -> None:
        """Does nothing."""

    @property
    def series(self) -> Counter[str]:
        """Number of points by series."""
        return Counter(point.key for point in self.points)


def simulate(readings: Readings, hours: float) -> dict[str, Store]:
    """Samples a simulated machine for a run of each resolution, in the same ticks; returns what is sent."""
    clock = SimulatedClock()
    collector = type("Playback", (Playback,), {"readings": readings})
    sampler = Sampler([Probe(collector, Host(), transparent=True)], clock)
    stores = {resolution: Store() for resolution in (CONSTANT, ADAPTIVE)}
    for resolution, store in stores.items():
        channel = cast("Channel", store)
        sampler.add(RunSeries(("", resolution), Settings(resolution=resolution), channel))
    for second in range(round(hours * HOUR) + 1):
        clock.seconds = float(second)
        sampler.run_due()
    sampler.flush()
    sampler.run_due()
    return stores


def measure(hours: float, record_seconds: int) -> dict[str, dict[str, Any]]:
    """Returns rows per hour by load."""
    loads = {
        "training": simulated_loads.training,
        "idle": simulated_loads.idle,
        "all noise": simulated_loads.noise,
    }
    if record_seconds:
        loads[f"this machine, {record_seconds} s repeated"] = lambda: simulated_loads.recorded(record_seconds)
    return {name: _rows(simulate(load(), hours), hours) for name, load in loads.items()}


def _rows(stores: dict[str, Store], hours: float) -> dict[str, Any]:
    adaptive = stores[ADAPTIVE]
    return {
        "built-in": BUILT_IN_SERIES * HOUR / BUILT_IN_SECONDS,
        **{name: len(store.points) / hours for name, store in stores.items()},
        "series": len(adaptive.series),
        "by series": {key: count / hours for key, count in adaptive.series.most_common()},
    }


def table(found: dict[str, dict[str, Any]], hours: float) -> Table:
    """Returns the table of what `measure` has found."""
    heading = (
        "load",
        "series",
        "built-in, 8 series",
        "ours, constant",
        "ours, default",
        "default / built-in",
    )
    rows = [
        (
            name,
            str(one["series"]),
            *(figure(one[side]) for side in ("built-in", CONSTANT, ADAPTIVE)),
            figure(one[ADAPTIVE] / one["built-in"]),
        )
        for name, one in found.items()
    ]
    return Table(f"Rows per hour of a run of {figure(hours)} hours", heading, rows)


def main() -> None:
    """Measures and prints, or draws."""
    parser = argparse.ArgumentParser(description="Counts the rows of a run.")
    parser.add_argument("--hours", type=float, default=24, help="length of the run")
    parser.add_argument("--record", type=int, default=60, help="seconds recorded of this machine; 0: none")
    parser.add_argument(
        "--pictures", type=Path, help="draw the pictures of docs/explanation/scaling.md into a directory"
    )
    options = parser.parse_args()
    if options.pictures:
        draw(options.pictures)
        return
    found = measure(options.hours, options.record)
    print(table(found, options.hours))
    for key, count in found["training"]["by series"].items():
        print(f"{count:6.1f}  {key}")


def draw(directory: Path) -> None:
    """Draws a day and an hour of the simulated training: every point, and the points of the default."""
    stores = simulate(simulated_loads.training(), 24)
    for name, hours, together in (("day", (0.0, 24.0), False), ("hour", (7.0, 8.1), True)):
        picture = Figure(figsize=(11, 5.4), layout="constrained")
        columns = 1 if together else 2
        axes = picture.subplots(len(DRAWN), columns, sharex=True, sharey="row", squeeze=False)
        for row, (key, title) in zip(axes, DRAWN.items(), strict=True):
            for column, resolution in enumerate((CONSTANT, ADAPTIVE)):
                _draw_curve(row[column % columns], stores[resolution], key, resolution, hours)
            row[0].set_ylabel(title, fontsize=8)
        for bottom in axes[-1]:
            bottom.set_xlabel("hours since the start of the run", fontsize=8)
        picture.savefig(directory / f"resolution_{name}.png", dpi=110, metadata={"Software": None})


def _draw_curve(axes: Axes, store: Store, key: str, resolution: str, hours: tuple[float, float]) -> None:
    points = [one for one in store.points if one.key == f"system/{key}"]
    times = [(one.timestamp - STARTED_AT) / 1000 / HOUR for one in points]
    inside = sum(hours[0] <= time <= hours[1] for time in times)
    together = hours[1] - hours[0] < 2  # close enough to see points
    style: dict[str, Any] = {"linewidth": 0.8, "color": COLOURS[resolution]}
    if together:
        style |= {"marker": "o", "markersize": 2.2 if resolution == CONSTANT else 4.5}
        style |= {"alpha": 0.5 if resolution == CONSTANT else 1}
    axes.plot(times, [one.value for one in points], label=f"{resolution}: {inside} points", **style)
    axes.set_xlim(*hours)
    axes.tick_params(labelsize=7)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.95), fontsize=7, ncols=2, frameon=False)


if __name__ == "__main__":
    main()
