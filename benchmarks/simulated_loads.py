"""A day on a machine, second by second: a training, an idle machine, noise, and a recording of this one."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors import COLLECTORS
from mlflow_sysmetrics.collectors.registry import resolve_all
from mlflow_sysmetrics.daemon.sampling.probe import Probe
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.samples import DEFAULT_FAMILIES, TOTALS, Kind, Sample

Readings = Iterator[Sequence[Sample]]

_MEMORY, _DISK = 64_000.0, 500_000.0  # megabytes
_EPOCH, _VALIDATION = 1200, 90  # seconds: one in the other
_CHECKPOINT_EVERY, _CHECKPOINT = 3600, 25
_TOTALS = ("network_receive_megabytes", "network_transmit_megabytes", "cpu_energy_watt_hours")


def _chances(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same day each time


class Noise:
    """Noise with a memory: each value is near the last one.

    Args:
        chances: the source of randomness.
        sigma: standard deviation.
        memory: share of the last value in the next.
    """

    def __init__(self, chances: random.Random, sigma: float, memory: float = 0.8) -> None:
        self._chances = chances
        self._sigma = sigma * math.sqrt(1 - memory**2)
        self._memory = memory
        self._value = 0.0

    def next(self) -> float:
        """Returns the next value."""
        self._value = self._memory * self._value + self._chances.gauss(0, self._sigma)
        return self._value


class Activity(NamedTuple):
    """What a machine does in a second; all series follow from it."""

    cpu: float
    own_cpu: float
    memory: float
    disk: float
    read: float
    written: float
    received: float
    sent: float
    io_pressure: float
    cpu_pressure: float
    threads: int
    files: int
    children: int


def training(seed: int = 1) -> Readings:
    """A training with epochs, validations, checkpoints, slow batches and a slow leak."""
    chances = _chances(seed)
    cpu, own, disk_noise, net, pressure = (
        Noise(chances, sigma, memory)
        for sigma, memory in ((7, 0.7), (25, 0.7), (4, 0.5), (6, 0.6), (1.5, 0.5))
    )
    stalled_until, disk, totals = 0, 120_000.0, dict.fromkeys(_TOTALS, 0.0)
    for second in itertools.count():
        validates = second % _EPOCH >= _EPOCH - _VALIDATION
        saves = second % _CHECKPOINT_EVERY >= _CHECKPOINT_EVERY - _CHECKPOINT
        if chances.random() < 1 / 400:
            stalled_until = second + chances.randint(4, 20)
        stalls = second < stalled_until
        busy = 22.0 if stalls else 38.0 if validates else 61.0
        written = 280 + 40 * chances.random() if saves else 0.4 if second % 30 == 0 else 0.0
        disk += written
        yield _samples(
            Activity(
                cpu=min(max(busy + cpu.next(), 1), 100),
                own_cpu=max(busy * 7.5 + own.next(), 0),
                memory=21_000 + second * 0.004 + (2400 if saves else 0) + 30 * chances.random(),
                disk=disk,
                read=max(0.0 if stalls else 42 + disk_noise.next(), 0),
                written=written,
                received=max(0.0 if stalls else 55 + net.next(), 0),
                sent=max(2 + 0.2 * net.next(), 0),
                io_pressure=max((35.0 if saves else 4 if stalls else 0.3) + 0.2 * pressure.next(), 0),
                cpu_pressure=max(6 + pressure.next(), 0),
                threads=96 + (8 if validates else 0),
                files=310 + (40 if validates else 0) + (3 if saves else 0),
                children=8 + (4 if validates else 0),
            ),
            totals,
            chances,
        )


def idle(seed: int = 2) -> Readings:
    """A notebook that somebody forgot: now and then the system does something."""
    chances, totals = _chances(seed), dict.fromkeys(_TOTALS, 0.0)
    for second in itertools.count():
        wakes = second % 300 < 2  # a cron job
        yield _samples(
            Activity(
                cpu=max((9.0 if wakes else 0.8) + chances.gauss(0, 0.25), 0),
                own_cpu=0.3 if second % 10 else 0.5,
                memory=3100 + (25 if wakes else 0) + (second // 97 % 5) * 0.8,
                disk=120_000 + second // 60 * 0.02,
                read=0.0,
                written=0.06 if second % 30 == 0 else 0.0,
                received=0.0004 * (second % 7 == 0),
                sent=0.0002 * (second % 7 == 0),
                io_pressure=0.0,
                cpu_pressure=0.02 if wakes else 0.0,
                threads=12,
                files=41,
                children=0,
            ),
            totals,
            chances,
        )


def noise(seed: int = 3) -> Readings:
    """The worst case: every series is noise without a memory."""
    chances = _chances(seed)
    names = [sample.key for sample in next(training())]
    while True:
        yield [Sample(name, Kind.GAUGE, chances.gauss(50, 10)) for name in names]


def recorded(seconds: int) -> Readings:
    """What this machine does now, recorded for some seconds and repeated; its totals go on growing."""
    host = Host()
    chosen = [collector for collector in COLLECTORS if collector.family in DEFAULT_FAMILIES]
    probes = [Probe(one, host, build) for one, build in zip(chosen, resolve_all(chosen, host), strict=True)]
    ticks: list[list[Sample]] = []
    for _ in range(seconds + 1):
        ticks.append([sample for probe in probes for sample in probe.read(time.monotonic())])
        time.sleep(1)
    ticks = ticks[1:]  # the first has no rates
    first, last = _totals(ticks[0]), _totals(ticks[-1])
    for repetition in itertools.count():
        grown = {key: repetition * (last[key] - first.get(key, last[key])) for key in last}
        for tick in ticks:
            yield [one._replace(value=one.value + grown.get(one.key, 0)) for one in tick]


def _totals(tick: Sequence[Sample]) -> Mapping[str, float]:
    return {sample.key: sample.value for sample in tick if sample.kind in TOTALS}


def _samples(now: Activity, totals: dict[str, float], chances: random.Random) -> list[Sample]:
    """Returns the 25 series of a Linux node with all sources; adds to the totals."""
    watts = 45 + 1.6 * now.cpu + chances.gauss(0, 0.6)
    totals["network_receive_megabytes"] += now.received
    totals["network_transmit_megabytes"] += now.sent
    totals["cpu_energy_watt_hours"] += watts / 3600
    busy = min(now.read / 4 + now.written / 5, 100)
    values = {
        "cpu_utilization_percentage": now.cpu,
        "cpu_pressure_percentage": now.cpu_pressure,
        "memory_pressure_percentage": 0.0,
        "io_pressure_percentage": now.io_pressure,
        "system_memory_usage_megabytes": now.memory,
        "system_memory_usage_percentage": 100 * now.memory / _MEMORY,
        "memory_available_megabytes": _MEMORY - now.memory,
        "process_cpu_percentage": now.own_cpu,
        "process_memory_rss_megabytes": now.memory - 1500,
        "process_memory_uss_megabytes": now.memory - 2100,
        "process_threads": now.threads,
        "process_open_files": now.files,
        "process_children": now.children,
        "disk_usage_percentage": 100 * now.disk / _DISK,
        "disk_usage_megabytes": now.disk,
        "disk_available_megabytes": _DISK - now.disk,
        "disk_read_megabytes_per_second": now.read,
        "disk_write_megabytes_per_second": now.written,
        "disk_busy_percentage": busy,
        "network_receive_megabytes_per_second": now.received,
        "network_transmit_megabytes_per_second": now.sent,
        "cpu_power_watts": watts,
        **totals,
    }
    return [
        Sample(name, Kind.COUNTER if name in totals else Kind.GAUGE, float(value))
        for name, value in values.items()
    ]
