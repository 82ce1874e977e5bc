"""The summary of a run while it lasts: what the rules say about all of it, and about its last minutes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mlflow_sysmetrics.summary.evidence import own_gpus
from mlflow_sysmetrics.summary.rules import (
    AT_ONCE,
    HEALTHY,
    WARM_UP_SECONDS,
    WARM_UP_SHARE,
    Verdict,
    verdicts,
)
from mlflow_sysmetrics.summary.run_statistics import IDLE_PERCENTAGE
from mlflow_sysmetrics.summary.summary import Summary, Surroundings
from mlflow_sysmetrics.summary.tick_history import Mark, TickHistory

#: Seconds between two refreshes of a run's summary.
REFRESH_SECONDS = 300.0
#: Marks of runs stand at multiples of this, so that many runs share them.
GRID_SECONDS = 60.0
#: A refresh waits so many seconds for points that are sent anyway.
COALESCE_SECONDS = 60.0
#: A run that was measured for less has no summary: its few points say as much.
SHORTEST_SECONDS = 10.0
# The last minutes are a quarter of an hour: in less, an evaluation or a checkpoint looks like a cause. While
# there is less, two thirds of that are enough.
_RECENT_REFRESHES, _RECENT_SECONDS = 3, 600.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known about a run at one moment.

    Attributes:
        summary: of the run on this node.
        verdicts: what the rules find in it.
        recent: what they find in its last quarter of an hour; without "healthy".
        gpus_are_idle: whether its GPUs did nothing in that time.
    """

    summary: Summary
    verdicts: tuple[Verdict, ...]
    recent: tuple[Verdict, ...]
    gpus_are_idle: bool


class LiveRun:
    """One run. Used by the sampler only.

    Args:
        history: what the process measures. The run begins with the tick that was added last.
        node: id of the node; "" for a run without one.
        surroundings: returns what is known about how the run is run.
    """

    def __init__(self, history: TickHistory, node: str, surroundings: Callable[[], Surroundings]) -> None:
        self._history = history
        self._node = node
        self._surroundings = surroundings
        self._began = history.begin()
        self._began_at = history.seconds
        self._due_at = self._on_grid(REFRESH_SECONDS)
        # Possible ends of the warm-up, with the age at each. 5 % of the run become longer while it lasts, so
        # there is one at two minutes, four, eight and so on.
        self._settled: deque[tuple[float, Mark]] = deque()
        self._settles_at = self._on_grid(WARM_UP_SECONDS)
        self._refreshes: deque[Mark] = deque()

    @property
    def seconds(self) -> float:
        """How long it has been measured."""
        return self._history.seconds - self._began_at

    def is_due(self, *, coalesces: bool) -> bool:
        """Returns whether to refresh now; called when a window closes.

        Args:
            coalesces: whether something is sent anyway.
        """
        self._settle()
        return self.seconds >= self._due_at + (0.0 if coalesces else COALESCE_SECONDS)

    def refresh(self) -> Reading:
        """Returns what is known; the next refresh is due five minutes later."""
        reading = self._read()
        self._due_at = self._on_grid(self.seconds + REFRESH_SECONDS - GRID_SECONDS / 2)
        self._refreshes.append(self._history.mark())
        while len(self._refreshes) > _RECENT_REFRESHES:
            self._history.remove(self._refreshes.popleft())
        return reading

    def end(self) -> Reading | None:
        """Ends the run and returns what is known; None if that is too little."""
        try:
            return self._read() if self.seconds >= SHORTEST_SECONDS else None
        finally:
            self.forget()

    def forget(self) -> None:
        """Ends the run without a reading."""
        self._history.end([self._began, *(mark for _, mark in self._settled), *self._refreshes])

    def _settle(self) -> None:
        """Keeps a mark where the warm-up may have ended."""
        age = self.seconds
        if age >= self._settles_at:
            self._settled.append((age, self._history.mark()))
            self._settles_at = self._on_grid(2 * age - GRID_SECONDS / 2)
        warm_up = max(WARM_UP_SECONDS, WARM_UP_SHARE * age)
        while len(self._settled) > 1 and self._settled[1][0] <= warm_up:
            self._history.remove(self._settled.popleft()[1])

    def _read(self) -> Reading:
        around = self._surroundings()
        whole = self._summary(self._began, around)
        settled = self._summary(self._settled[0][1], around) if self._settled else None
        found = verdicts(whole, settled)
        last = settled
        if len(self._refreshes) == _RECENT_REFRESHES:
            last = self._summary(self._refreshes[0], around)
        is_enough = last is not None and last.seconds >= _RECENT_SECONDS
        used = [one for _, one in own_gpus(last)] if last is not None and is_enough else []
        recent = found if last is None else verdicts(last, last)
        return Reading(
            summary=whole,
            verdicts=found,
            recent=tuple(one for one in recent if one.name != HEALTHY and (is_enough or one.name in AT_ONCE)),
            gpus_are_idle=bool(used) and all(one.max <= IDLE_PERCENTAGE for one in used),
        )

    def _on_grid(self, age: float) -> float:
        """Returns the first age from a given one on that is on the grid of the process."""
        at = self._began_at + age
        return math.ceil(at / GRID_SECONDS - 1e-6) * GRID_SECONDS - self._began_at

    def _summary(self, mark: Mark, around: Surroundings) -> Summary:
        return self._history.summary(mark, self._node, around)
