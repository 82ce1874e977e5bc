"""How busy the job's processes keep the engines of a GPU, from two readings of its clients."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.counters import Counters, CounterSet
from mlflow_sysmetrics.collectors.drm.clients import DrmClient

_NANOSECONDS = 1e9
_MOST_NANOSECONDS = 10 * _NANOSECONDS  # some drivers count a long job when it ends
_MOST_CYCLES = 1e11  # a second of 100 engines at 1 GHz


class Share(NamedTuple):
    """A share of time in percent, and the seconds that it covers."""

    percentage: float
    span: float


class EngineTime:
    """Compares the clients of one GPU with the previous reading.

    i915 counts nanoseconds; xe counts used and elapsed cycles. Both are summed over the clients and divided
    by the number of engines in a class. https://docs.kernel.org/gpu/drm-usage-stats.html The kernel allows
    the counters to go back until they catch up.
    """

    def __init__(self) -> None:
        self._read_at = math.inf
        self._capacity: dict[str, int] = {}
        self._busy = CounterSet(lambda name: Counters(_MOST_NANOSECONDS * self._capacity[name]))
        self._cycles = CounterSet(lambda _: Counters(_MOST_CYCLES, _MOST_CYCLES))

    def busiest(self, now: float, clients: Sequence[DrmClient]) -> Share | None:
        """Returns how busy the busiest engine class was; None if no client has ever used an engine.

        Args:
            now: seconds of a clock that never goes back.
            clients: all clients of the GPU; a new one counts from the next reading on.
        """
        span, self._read_at = now - self._read_at, now
        busy: dict[str, tuple[int, ...]] = {}
        cycles: dict[str, tuple[int, ...]] = {}
        used = {
            client.identity for client in clients if any((*client.busy.values(), *client.cycles.values()))
        }
        self._capacity.clear()
        for client in clients:
            for engine in (*client.busy, *client.cycles):
                self._capacity[f"{client.identity} {engine}"] = client.capacity.get(engine, 1)
            busy |= {f"{client.identity} {engine}": (spent,) for engine, spent in client.busy.items()}
            cycles |= {
                f"{client.identity} {engine}": (spent, client.total_cycles[engine])
                for engine, spent in client.cycles.items()
                if engine in client.total_cycles
            }
        shares: dict[str, float] = defaultdict(float)
        for name, step in self._busy.follow(busy, now).items():
            self._add(shares, used, name, step.grown[0] / _NANOSECONDS, step.span)
        for name, step in self._cycles.follow(cycles, now).items():
            self._add(shares, used, name, *(step.grown if step.span else (0, 0)))
        if not shares or span <= 0:
            return None
        return Share(min(PERCENT * max(shares.values()), PERCENT), span)

    def _add(
        self, shares: dict[str, float], used: Collection[int], name: str, spent: float, passed: float
    ) -> None:
        """Adds the share of one engine class that one client has used."""
        identity, _, engine = name.partition(" ")
        if passed > 0 and int(identity) in used:  # else new, or opened but not used
            shares[engine] += spent / passed / self._capacity[name]
