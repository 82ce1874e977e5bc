"""What a busy machine adds to a duration, measured beside it.

A promise of seconds is about what the product does. On a machine whose cores belong to others it can only be
held against what is left of the seconds that passed. Put on the path by pytest (`pythonpath` in
pyproject.toml); programs of the tests import it too, so it needs the standard library alone.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

_BEAT_SECONDS = 0.01
_NANOSECONDS = 1e9


class Stalls:
    """Adds up, inside a ``with`` block, for how long this process could have run and did not.

    A thread that sleeps ten milliseconds at a time counts by how much it wakes too late. What this process
    itself computed meanwhile is no stall; so a product that keeps everybody from running, or that waits, is
    not excused by it. Where Linux tells, the time that the thread which entered the block has waited for a
    core comes on top: it wants one for longer than the other thread does.
    """

    def __init__(self) -> None:
        self._late = 0.0
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)
        self._task = 0
        self._queued = 0.0

    @property
    def seconds(self) -> float:
        """How long it was, up to now."""
        beats = self._beats
        while self._beats <= beats + 1:  # the beat that is late has not been counted yet
            time.sleep(_BEAT_SECONDS)
        return self._late + _seconds_in_queue(self._task) - self._queued

    def __enter__(self) -> Stalls:
        self._task = threading.get_native_id()
        self._queued = _seconds_in_queue(self._task)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            began, spent = time.monotonic(), time.process_time()
            time.sleep(_BEAT_SECONDS)
            gap, own = time.monotonic() - began, time.process_time() - spent
            self._late += max(gap - _BEAT_SECONDS - own, 0.0)
            self._beats += 1


def _seconds_in_queue(task: int) -> float:
    """Returns for how long a thread of this process has been ready and without a core; 0 where nothing tells."""
    try:
        return int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[1]) / _NANOSECONDS
    except (OSError, IndexError, ValueError):
        return 0.0
