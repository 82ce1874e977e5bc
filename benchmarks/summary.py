"""What the summaries of runs cost: CPU time of default ticks with and without them, in one process in turns.

python benchmarks/summary.py [--ticks 3000] [--runs 1] [--gpus 0]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from default_tick import PAUSE_SECONDS
from tick_cost import SecondHand, our_probes

from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
from mlflow_sysmetrics.daemon.delivery.inbox import Channel
from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import open_sink
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, Family, Kind, Sample
from mlflow_sysmetrics.settings import Settings
from mlflow_sysmetrics.summary.alerts import AlertSender
from mlflow_sysmetrics.summary.announcer import announcer_of

MICROSECONDS = 1e6
STAND_IN = {
    "utilization_percentage": 100.0,
    "memory_usage_percentage": 80.0,
    "memory_usage_megabytes": 64_000.0,
    "process_memory_megabytes": 60_000.0,
    "power_usage_watts": 700.0,
    "temperature_celsius": 80.0,
    "throttled_percentage": 0.0,
}


class StandInGpus:
    """GPUs that cost nothing to read and whose values change at each tick: the worst case."""

    family = Family.GPU
    metrics = ()
    gaps = ()
    count = 0

    def __init__(self, host: Host) -> None:
        del host

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields the values of all of them."""
        del now
        for number in range(self.count):
            for name, most in STAND_IN.items():
                yield Sample(f"gpu_{number}_{name}", Kind.GAUGE, random.random() * most)  # noqa: S311


def side(runs: int, *, summary: bool) -> Callable[[], None]:
    """Returns a default tick of a process with some runs, which began a second after each other."""
    host_probes = our_probes([one for one in load_classes(COLLECTORS) if one.family in DEFAULT_FAMILIES])
    clock = SecondHand()
    sampler = Sampler([*host_probes, Probe(StandInGpus, Host())], clock)
    settings = Settings(summary=summary)
    for number in range(runs):
        queue = RunQueue(str(number), 0, settings.send_interval)
        queue.put = partial(_forget, queue)  # type: ignore[method-assign]
        announcer = announcer_of(str(number), settings, sampler.history, AlertSender())
        channel = Channel(Sender("", open_sink, clock), queue)
        sampler.add(RunSeries(("", str(number)), settings, channel, announcer=announcer))
        clock.advance()
        sampler.tick()

    def tick() -> None:
        clock.advance()
        sampler.tick()

    return tick


def _forget(queue: RunQueue, points: list[Point], place: int | None = None) -> None:
    """Takes the place of a queue that is delivered: memory stays as it is."""
    del place
    queue.appended += len(points)


def main() -> None:
    """Prints the means, the difference, and the ticks with a refresh."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    chosen = parser.parse_args()
    StandInGpus.count = chosen.gpus
    sides = {"without": side(chosen.runs, summary=False), "with": side(chosen.runs, summary=True)}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(chosen.ticks):
        for name in sides if number % 2 else reversed(sides):
            before = time.thread_time()
            sides[name]()
            spent[name].append((time.thread_time() - before) * MICROSECONDS)
        time.sleep(PAUSE_SECONDS)
    means = {name: statistics.fmean(values[20:]) for name, values in spent.items()}
    print(f"{chosen.ticks} ticks, {chosen.runs} runs, {chosen.gpus} stand-in GPUs; CPU, microseconds")
    for name, values in spent.items():
        print(
            f"  {name:8} mean {means[name]:8.1f}  median {statistics.median(values[20:]):8.1f}"
            f"  max {max(values[20:]):8.1f}"
        )
    print(f"  a tick is {100 * (means['with'] / means['without'] - 1):.1f} % dearer")


if __name__ == "__main__":
    main()
