"""How busy the job's processes keep the engines of a GPU, from two readings of its clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlflow_sysmetrics.collectors.contract import PERCENT
from mlflow_sysmetrics.collectors.drm.clients import DrmClient

_NANOSECONDS = 1e9


class Share(NamedTuple):
    """A share of time in percent, and the seconds that it covers."""

    percentage: float
    span: float


class EngineTime:
    """Compares the clients of one GPU with the previous reading.

    i915 counts nanoseconds; xe counts used and elapsed cycles. Both are summed over the clients and divided
    by the number of engines in a class. https://docs.kernel.org/gpu/drm-usage-stats.html
    """

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._last: dict[int, DrmClient] = {}

    def busiest(self, now: float, clients: Sequence[DrmClient]) -> Share | None:
        """Returns how busy the busiest engine class was; None if no client has ever used an engine.

        Args:
            now: seconds of a clock that never goes back.
            clients: all clients of the GPU; a new one counts from the next reading on.
        """
        span = 0.0 if self._read_at is None else now - self._read_at
        before, self._last, self._read_at = self._last, {}, now
        shares: dict[str, float] = defaultdict(float)
        for client in clients:
            then = before.get(client.identity, client)
            current = _caught_up(then, client)
            self._last[client.identity] = current
            if span > 0 and client.identity in before:
                _add_shares(shares, then, current, span)
        if not shares:
            return None
        return Share(min(PERCENT * max(shares.values()), PERCENT), span)


def _add_shares(shares: dict[str, float], then: DrmClient, client: DrmClient, span: float) -> None:
    if not any((*client.busy.values(), *client.cycles.values())):
        return  # opened but not used
    for engine, spent in client.busy.items():
        grown = spent - then.busy.get(engine, spent)
        shares[engine] += grown / _NANOSECONDS / span / client.capacity.get(engine, 1)
    for engine, spent in client.cycles.items():
        passed = client.total_cycles.get(engine, 0) - then.total_cycles.get(engine, 0)
        if engine in then.total_cycles and passed > 0:
            shares[engine] += (
                (spent - then.cycles.get(engine, spent)) / passed / client.capacity.get(engine, 1)
            )


def _caught_up(then: DrmClient, client: DrmClient) -> DrmClient:
    """Returns a client whose counters never go back; the kernel allows them to, until they catch up."""
    return client._replace(busy=_larger(then.busy, client.busy), cycles=_larger(then.cycles, client.cycles))


def _larger(then: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {engine: max(count, then.get(engine, 0)) for engine, count in now.items()}
