"""Measures how much of a duration was caused by a busy machine.

A time limit applies to what the product does. On a machine whose cores are shared, stalls must be subtracted from
the elapsed time first. On the path of pytest (`pythonpath` in pyproject.toml); programs of the tests import it
too, so it needs the standard library only.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

_BEAT_SECONDS = 0.01
_NANOSECONDS = 1e9


class Stalls:
    """Measures, in a ``with`` block, how long this process was ready to run but did not run.

    A thread that sleeps ten milliseconds at a time measures how late it wakes up. CPU time used by this process
    meanwhile does not count, so a product that blocks all threads, or that waits, is not excused. On Linux, the
    time that the thread which entered the block waited for a core is added: it needs a core for longer than the
    measuring thread.
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
        """Stalled seconds so far."""
        beats = self._beats
        while self._beats <= beats + 1:  # the current beat is not counted yet
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
    """Returns how long a thread of this process was ready without a core; 0 if unknown."""
    try:
        return int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[1]) / _NANOSECONDS
    except (OSError, IndexError, ValueError):
        return 0.0
