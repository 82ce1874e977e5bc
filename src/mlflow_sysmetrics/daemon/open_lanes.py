"""The lanes that programs write into at this moment, by the run that they lead to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from mlflow_sysmetrics.daemon.lane import Lane

Key: TypeAlias = tuple[str, str]  #: tracking URI and run id
Gather: TypeAlias = Callable[[], None]  #: puts into its lane what was held back so far


class OpenLanes:
    """Holds lanes until they are closed. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come back in
        self._lanes: dict[Key, dict[Lane, Gather | None]] = {}

    def add(self, key: Key, lane: Lane, gather: Gather | None) -> None:
        """Takes a lane of a run."""
        with self._lock:
            self._lanes.setdefault(key, {})[lane] = gather

    def remove(self, lane: Lane) -> None:
        """Lets go of a lane."""
        with self._lock:
            for key in [key for key, lanes in self._lanes.items() if lane in lanes]:
                del self._lanes[key][lane]
                if not self._lanes[key]:
                    del self._lanes[key]

    def of(self, key: Key) -> list[Lane]:
        """Returns the lanes of a run."""
        with self._lock:
            return list(self._lanes.get(key, ()))

    def gather(self, key: Key | None = None) -> None:
        """Has programs hand over what they hold back: for one run, or for all."""
        with self._lock:
            chosen = list(self._lanes.values()) if key is None else [self._lanes.get(key, {})]
            gathers = [one for lanes in chosen for one in lanes.values() if one is not None]
        for gather in gathers:  # without the lock: a device may take its time
            gather()
