"""Compares our series with the kernel's accounting, and programs that give both something to count.

A share of time is compared for each point and for all points together. One point may be off by as much as the
program was stopped between a reading and its time stamp (up to a period of the quota, 100 ms of a second); over
the whole run that cancels out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from kernel_accounting import Witness
from sampled_containers import Points, Sampled

MEBIBYTE = 1024 * 1024
MEGABYTE = 1e6
POINTS = 6
# Percentage points.
ONE_POINT = 15
ALL_POINTS = 4
# A process that allocates changes the working set between our reading and the witness's.
MEMORY = 0.03

# Works on a share of one core, in small pieces: it does not catch up after it was stopped.
WORK = """
import itertools
import time
while True:
    began = time.thread_time()
    while time.thread_time() - began < 0.002:
        pass
    if {share} < 1:
        time.sleep(0.002 / {share} - 0.002)
"""
# Holds memory, and as much again in the page cache, which the kernel drops when it needs room.
HOLD = """
import os, time
held = bytearray(os.urandom(1000000)) * {megabytes}
with open("/store/cached", "wb") as file:
    file.write(held)
    os.fsync(file.fileno())
    time.sleep(86400)
"""


def spans(points: Points) -> list[tuple[float, float, float]]:
    """Returns begin, end and value of each point but the first, which is a rate over the time before it."""
    return [(before, at, value) for (before, _), (at, value) in itertools.pairwise(points)]


def mean(points: Points) -> float:
    """Returns the mean of a rate, each point weighted by its span."""
    found = spans(points)
    return sum(value * (end - begin) for begin, end, value in found) / (found[-1][1] - found[0][0])


def check_cpu(container: Sampled, points: Points, cores: float) -> None:
    """Compares CPU utilization with the CPU time that the kernel has counted."""

    def share(begin: float, end: float) -> float:
        return min(100 * container.witness.rate(lambda reading: reading.cpu, begin, end) / cores, 100)

    time.sleep(0.2)  # the witness reads on, beyond the last point
    for begin, end, value in spans(points):
        assert value == pytest.approx(share(begin, end), abs=ONE_POINT)
    assert mean(points) == pytest.approx(share(points[0][0], points[-1][0]), abs=ALL_POINTS)


def check_throttling(witness: Witness, points: Points) -> None:
    """Compares throttling with the periods that the kernel has counted."""
    begin, end = points[0][0], points[-1][0]
    periods = witness.rate(lambda reading: reading.periods, begin, end)
    throttled = witness.rate(lambda reading: reading.throttled, begin, end)
    expected = 100 * throttled / periods if periods else 0
    assert mean(points) == pytest.approx(expected, abs=2 * ALL_POINTS)


def check_memory(
    container: Sampled, after: float, limit: float, limited: Sequence[tuple[float, Witness]] = ()
) -> None:
    """Compares the working set, its share of the limit and what is left of that with what the kernel has counted.

    Args:
        container: what is sampled.
        after: seconds since 1970.
        limit: the smallest limit, in bytes.
        limited: limit in bytes and witness of every limited group, if that is not just the container's own. A
            group above that of the program holds more: what started it, and files that others have read.
    """
    for at, value in container.points("system_memory_usage_megabytes", after=after):
        least, most = _working_set(container.witness, at)
        assert least <= value <= most
        [percent] = [
            value for when, value in container.points("system_memory_usage_percentage") if when == at
        ]
        assert percent == pytest.approx(100 * value * MEGABYTE / limit, abs=0.1)
        [left] = [value for when, value in container.points("memory_available_megabytes") if when == at]
        if not limited:
            assert left == pytest.approx(limit / MEGABYTE - value, rel=0.001)
            continue
        held = [(most / MEGABYTE, *_working_set(witness, at)) for most, witness in limited]
        assert min(most - high for most, _, high in held) <= left <= min(most - low for most, low, _ in held)


def _working_set(witness: Witness, at: float) -> tuple[float, float]:
    """Returns the least and the most megabytes that a group may have held at a moment."""
    seen = witness.between(lambda reading: reading.working_set / MEGABYTE, at - 1, at + 0.3)
    return min(seen) * (1 - MEMORY), max(seen) * (1 + MEMORY)
