"""Compares our figures with psutil, /proc, `free` and `df`, tick by tick, under load.

    python benchmarks/agreement.py [SECONDS]

Two readings never happen at the same moment. So each witness is read right before and right after ours; its
two values form a bracket that should contain ours. The distance of ours from the bracket is its deviation.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import witnesses
from brackets import Bracket, Moment, Ticks
from load import under_load
from tables import Table, figure
from witnesses import Machine, read_witnesses

_MEGABYTE = 1e6
_PERCENT = 100.0
_TOLERATED = 0.02
_DECIMALS = 3  # of a deviation in percent; smaller differences are floating-point rounding
_INTERVAL_SECONDS = 1.0
_SPARE_SECONDS = 30.0  # after this the load ends by itself, even if it is not stopped


class Comparison(NamedTuple):
    """How one of our metrics is computed from the statements of a witness.

    Attributes:
        keys: candidate names of the metric; the first existing one is used.
        needs: statements that the witness must make.
        resolution: of the counter, in the metric's unit.
        bracket: returns the bracket of the metric.
    """

    keys: tuple[str, ...]
    needs: frozenset[str]
    resolution: float
    bracket: Callable[[Ticks], Bracket]


def _level(key: str, name: str, resolution: float) -> Comparison:
    def bracket(ticks: Ticks) -> Bracket:
        return ticks.now.level(name).times(1 / _MEGABYTE)

    return Comparison((key,), frozenset({name}), resolution / _MEGABYTE, bracket)


def _share(keys: tuple[str, ...], part: str, rest: str) -> Comparison:
    """Compares a share of the sum of two levels, where one rises as the other falls."""

    def bracket(ticks: Ticks) -> Bracket:
        shares = [_PERCENT * said[part] / (said[part] + said[rest]) for said in ticks.now[1:]]
        return Bracket(min(shares), max(shares))

    return Comparison(keys, frozenset({part, rest}), 0.0, bracket)


def _per_second(key: str, name: str, resolution: float) -> Comparison:
    def bracket(ticks: Ticks) -> Bracket:
        return ticks.rate(name).times(1 / _MEGABYTE)

    needs = frozenset({name, witnesses.SECONDS})
    return Comparison((key,), needs, resolution / _MEGABYTE / _INTERVAL_SECONDS, bracket)


def _total(key: str, name: str) -> Comparison:
    def bracket(ticks: Ticks) -> Bracket:
        return ticks.now.grown(name, ticks.first).times(1 / _MEGABYTE)

    return Comparison((key,), frozenset({name}), 1 / _MEGABYTE, bracket)


def _cpu() -> Comparison:
    def bracket(ticks: Ticks) -> Bracket:
        return ticks.rate(witnesses.CPU_BUSY, witnesses.CPU_TOTAL).times(_PERCENT)

    keys = ("host_cpu_utilization_percentage", "cpu_utilization_percentage")
    # One tick of the kernel's clock on one CPU.
    resolution = _PERCENT / (witnesses.TICKS_PER_SECOND * witnesses.CPUS * _INTERVAL_SECONDS)
    return Comparison(keys, frozenset({witnesses.CPU_BUSY, witnesses.CPU_TOTAL}), resolution, bracket)


# Units in which memory and space, disk traffic, and network traffic are counted.
_PAGE, _SECTOR, _BYTE = 4096, 512, 1
_MEMORY_SHARE = ("host_memory_usage_percentage", "system_memory_usage_percentage")
COMPARISONS = (
    _cpu(),
    _share(_MEMORY_SHARE, witnesses.MEMORY_USED, witnesses.MEMORY_AVAILABLE),
    _level("system_memory_usage_megabytes", witnesses.MEMORY_USED, _PAGE),
    _level("memory_available_megabytes", witnesses.MEMORY_AVAILABLE, _PAGE),
    _share(("disk_usage_percentage",), witnesses.DISK_USED, witnesses.DISK_FREE),
    _level("disk_usage_megabytes", witnesses.DISK_USED, _PAGE),
    _level("disk_available_megabytes", witnesses.DISK_FREE, _PAGE),
    _per_second("disk_read_megabytes_per_second", witnesses.DISK_READ, _SECTOR),
    _per_second("disk_write_megabytes_per_second", witnesses.DISK_WRITTEN, _SECTOR),
    _total("network_receive_megabytes", witnesses.RECEIVED),
    _total("network_transmit_megabytes", witnesses.SENT),
    _per_second("network_receive_megabytes_per_second", witnesses.RECEIVED, _BYTE),
    _per_second("network_transmit_megabytes_per_second", witnesses.SENT, _BYTE),
)


def measure(seconds: int) -> list[dict[str, Any]]:
    """Returns our value and the bracket at each tick, for each metric and witness."""
    with tempfile.TemporaryDirectory() as directory, under_load(directory, seconds + _SPARE_SECONDS):
        ticks = _watch(directory, seconds)
    found = []
    for comparison in COMPARISONS:
        for witness in witnesses.WITNESSES:
            moments = [Moment(ours, before[witness], after[witness]) for ours, before, after in ticks]
            key = next((key for key in comparison.keys if key in moments[-1].ours), None)
            if key is not None and comparison.needs <= moments[-1].after.keys():
                values = list(_compared(key, comparison, moments))
                found.append(
                    {"key": key, "witness": witness, "resolution": comparison.resolution, "ticks": values}
                )
    return found


def _watch(directory: str, seconds: int) -> list[tuple[dict[str, float], Any, Any]]:
    """Returns for each tick our values and the statements before and after."""
    from mlflow_sysmetrics.collectors import COLLECTORS
    from mlflow_sysmetrics.daemon.sampling.probe import Probe
    from mlflow_sysmetrics.machine.host import Host
    from mlflow_sysmetrics.samples import Family

    host = Host(working_directory=lambda: directory)
    families = {Family.CPU, Family.MEMORY, Family.DISK, Family.NETWORK}
    probes = [Probe(collector, host) for collector in COLLECTORS if collector.family in families]
    machine = Machine(directory)
    began = time.monotonic()
    ticks = []
    for number in range(seconds + 1):
        time.sleep(max(began + number * _INTERVAL_SECONDS - time.monotonic(), 0.0))
        before = read_witnesses(machine)
        now = time.monotonic()
        ours = {sample.key: sample.value for probe in probes for sample in probe.read(now)}
        ticks.append((ours, before, read_witnesses(machine, mirrored=True)))
    return ticks


def _compared(
    key: str, comparison: Comparison, moments: Sequence[Moment]
) -> Iterator[tuple[float, float, float]]:
    for last, now in itertools.pairwise(moments):
        if key in now.ours:
            yield (now.ours[key], *comparison.bracket(Ticks(moments[0], last, now)))


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the table of what `measure` found."""
    ticks = max(len(one["ticks"]) for one in found)
    return Table(
        f"Our figures and those of others, {ticks} ticks of {_INTERVAL_SECONDS:g} s under varying load",
        (
            "metric",
            "compared with",
            "ours, lowest to highest",
            "bracket, % of the value",
            "largest deviation, %",
            "mean deviation, %",
            f"within {_PERCENT * _TOLERATED:g} % or the resolution",
        ),
        [_row(one) for one in found],
    )


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    ours = [value for value, _, _ in one["ticks"]]
    brackets = [Bracket(low, high) for _, low, high in one["ticks"]]
    distances = [bracket.distance(value) for value, bracket in zip(ours, brackets, strict=True)]
    middles = [(bracket.low + bracket.high) / 2 for bracket in brackets]
    resolution = one["resolution"]
    shares = [
        distance / max(middle, resolution) if distance else 0.0
        for distance, middle in zip(distances, middles, strict=True)
    ]
    good = sum(
        share <= _TOLERATED or distance <= resolution
        for share, distance in zip(shares, distances, strict=True)
    )
    width = sum(bracket.high - bracket.low for bracket in brackets) / (sum(middles) or 1.0)
    return (
        one["key"],
        one["witness"],
        f"{figure(min(ours))} to {figure(max(ours))}",
        *(_percent(share) for share in (width, max(shares), statistics.fmean(shares))),
        f"{'yes' if good == len(ours) else 'NO'}, {good} of {len(ours)}",
    )


def _percent(share: float) -> str:
    return figure(round(_PERCENT * share, _DECIMALS))


def main() -> None:
    """Compares and prints."""
    print(table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 60)))


if __name__ == "__main__":
    main()
