"""How much the sampler slows down a program: a loop of Python, and a training step of torch.

The same work in alternating blocks with and without the sampler's thread, in one process. The slowdown at
one tick per second is far below what a shared machine lets one see, so the sampler ticks ten times as often,
and what is found is divided by ten.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tables import Cell, Table, figure
from tick_cost import NO_SERVER, our_probes
from variants import BUILT_IN, fresh_worker

KINDS = ("Python", "torch")
_INTERVAL_SECONDS = 0.1
_DEFAULT_INTERVAL_SECONDS = 1.0
_BLOCK_SECONDS = 0.5  # five ticks
_RESAMPLES = 4000
_TRIMMED = 0.2  # of the pairs at each end: those that something else has disturbed
_LIMIT_PERCENT = 1.0
_GAP_SECONDS = 20.0
_SHORTEST_GAP_SECONDS = 50e-6  # a turn of the loop takes a tenth
_MILLISECONDS = 1e3
_PERCENT = 100


def interference(kind: str, pairs: int) -> dict[str, Any]:
    """Returns the seconds of each block with and without the sampler, and gaps in a loop; in the worker."""
    work = _torch_work() if kind == "torch" else _python_work
    if work is None:
        return {"skipped": "torch is not installed"}
    repetitions = _calibrated(work)
    sampler = _Switch()
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    cpu: dict[str, list[float]] = {"off": [], "on": []}
    for pair in range(pairs):
        for side in ("off", "on") if pair % 2 else ("on", "off"):
            sampler.turn(on=side == "on")
            began, cpu_began = time.perf_counter(), time.process_time()
            for _ in range(repetitions):
                work()
            seconds[side].append(time.perf_counter() - began)
            cpu[side].append(time.process_time() - cpu_began)
    found: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu, "ticks": sampler.ticks}
    if kind == "Python":
        for side in ("off", "on"):
            sampler.turn(on=side == "on")
            found[f"gaps_{side}"] = _longest_gaps(sampler)
    sampler.turn(on=False)
    return found


class _Switch:
    """The thread of a sampler with all default collectors and one run, which can be turned on and off."""

    def __init__(self) -> None:
        from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
        from mlflow_sysmetrics.daemon.sampling.sampler import Sampler
        from mlflow_sysmetrics.runtime.clock import SystemClock
        from mlflow_sysmetrics.samples import DEFAULT_FAMILIES

        self._clock = SystemClock()
        collectors = [one for one in load_classes(COLLECTORS) if one.family in DEFAULT_FAMILIES]
        self._sampler = Sampler(our_probes(collectors), self._clock)
        self._sampler.start()
        self._series: Any = None

    @property
    def ticks(self) -> int:
        """Number of ticks so far."""
        return self._sampler.ticks

    def turn(self, *, on: bool) -> None:
        """Starts or stops the ticks, and waits until that is done."""
        from mlflow_sysmetrics.daemon.delivery.inbox import Channel
        from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
        from mlflow_sysmetrics.daemon.delivery.sender import Sender
        from mlflow_sysmetrics.daemon.delivery.sink import open_sink
        from mlflow_sysmetrics.daemon.sampling.run_series import RunSeries
        from mlflow_sysmetrics.settings import Settings

        if on and self._series is None:
            settings = Settings(sampling_interval=_INTERVAL_SECONDS, samples_before_logging=10)
            queue = RunQueue("run", 0, settings.send_interval)
            channel = Channel(Sender("", open_sink, self._clock), queue)
            self._series = RunSeries(("", "run"), settings, channel)
            before = self.ticks
            self._sampler.add(self._series)
            while self.ticks == before:
                time.sleep(0.01)
        elif not on and self._series is not None:
            self._sampler.remove(self._series)
            self._series.ended.wait()
            self._series = None
        time.sleep(0.02)


def _python_work() -> int:
    """Does a few milliseconds of Python: calls, attributes, dictionaries, numbers."""
    counts: dict[int, int] = {}
    for number in range(20_000):
        key = number * 7919 % 101
        counts[key] = counts.get(key, 0) + number % 3
    return sum(counts.values())


def _torch_work() -> Callable[[], object] | None:
    """Returns a training step of a small network on one thread."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs, labels = torch.randn(64, 128), torch.randint(0, 10, (64,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step


def _calibrated(work: Callable[[], object]) -> int:
    """Returns how often the work fits into a block."""
    for _ in range(20):
        work()
    began = time.perf_counter()
    for _ in range(50):
        work()
    return max(round(50 * _BLOCK_SECONDS / (time.perf_counter() - began)), 1)


def _longest_gaps(sampler: _Switch) -> dict[str, Any]:
    """Runs an empty loop, and returns its longest interruptions in seconds.

    With the sampler they include every stretch in which a tick holds Python's lock. The process may also be
    preempted, with and without it.
    """
    clock = time.perf_counter
    ends = clock() + _GAP_SECONDS
    gaps = []
    before = clock()
    ticks = sampler.ticks
    while before < ends:
        now = clock()
        if now - before > _SHORTEST_GAP_SECONDS:
            gaps.append(now - before)
        before = now
    return {"longest": sorted(gaps)[-1000:], "count": len(gaps), "ticks": sampler.ticks - ticks}


def slowdown(seconds: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Returns the slowdown at one tick per second in percent, and its 95 % interval.

    A trimmed mean over the pairs of blocks, and its bootstrap interval.
    """
    ratios = [math.log(on / off) for on, off in zip(seconds["on"], seconds["off"], strict=True)]
    draw = random.Random(0)  # noqa: S311 - the same interval for the same figures
    means = sorted(_trimmed_mean(draw.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    low, high = means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]
    share = _PERCENT * _INTERVAL_SECONDS / _DEFAULT_INTERVAL_SECONDS
    middle, low, high = (share * math.expm1(one) for one in (_trimmed_mean(ratios), low, high))
    return middle, low, high


def _trimmed_mean(values: Sequence[float]) -> float:
    cut = int(_TRIMMED * len(values))
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def measure(pairs: int) -> dict[str, Any]:
    """Returns the figures of both kinds of work, each in a fresh interpreter."""
    found = {}
    for kind in KINDS:
        with fresh_worker(BUILT_IN, tracking_uri=NO_SERVER) as worker:
            takes = 3 * pairs * _BLOCK_SECONDS + 2 * _GAP_SECONDS
            found[kind] = worker.ask("interference", takes=takes, kind=kind, pairs=pairs)
    return found


def table(found: Mapping[str, Any]) -> Table:
    """Returns the table of what `measure` found."""
    rows: list[tuple[str, ...]] = []
    pairs = 0
    for kind, one in found.items():
        if "skipped" in one:
            rows.append((kind, one["skipped"], "", "", ""))
            continue
        rows += [
            (f"{kind}, {what}", *_compared(one[of]), gaps)
            for what, of, gaps in (("wall time", "seconds", _gaps(one)), ("CPU time", "cpu_seconds", ""))
        ]
        pairs = len(one["seconds"]["on"])
    return Table(
        "Slowdown by the sampler with everything read by default, at one tick per second; "
        f"{pairs} pairs of blocks of {_BLOCK_SECONDS:g} s, CPU time is that of all threads",
        (
            "",
            "slowdown, % (95 % interval)",
            "noise of a pair, %",
            f"below {_LIMIT_PERCENT:g} %",
            "interruptions of an empty loop, ms: median of the longest per tick, longest",
        ),
        rows,
    )


def _compared(seconds: Mapping[str, Sequence[float]]) -> tuple[str, str, str]:
    middle, low, high = slowdown(seconds)
    both = zip(seconds["on"], seconds["off"], strict=True)
    noise = statistics.stdev(_PERCENT * math.log(on / off) for on, off in both)
    verdict = "yes" if high < _LIMIT_PERCENT else "NO"
    return f"{middle:.3f} ({low:.3f} to {high:.3f})", figure(noise), verdict


def _gaps(found: Mapping[str, Any]) -> str:
    shown = []
    for side in ("off", "on"):
        gaps = found.get(f"gaps_{side}")
        if gaps and gaps["longest"]:
            ticks = max(found["gaps_on"]["ticks"], 1)
            longest = Cell([_MILLISECONDS * one for one in gaps["longest"][-ticks:]])
            shown.append(f"{side} {figure(longest.median)}, {figure(max(longest.values))}")
    return "; ".join(shown)


if __name__ == "__main__":
    print(table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 120)))
