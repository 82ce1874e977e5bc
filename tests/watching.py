"""Waits for a state rather than a time: on a busy machine, milliseconds may become seconds.

On the path of pytest (`pythonpath` in pyproject.toml); programs of the integration tests import it too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Our threads that wait for work and do not end when there is none.
LASTING = ("sysmetrics-sampler", "sysmetrics-sender", "sysmetrics-journal", "sysmetrics-watchdog")
IDLE = "sysmetrics-readings"  # a thread that may make another reading, and ends if there is none
LONG_SECONDS = 60.0  # only a failing test waits this long


def eventually(holds: Callable[[], object], seconds: float = LONG_SECONDS) -> None:
    """Waits until a condition holds.

    Raises:
        AssertionError: the condition did not hold in time.
    """
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"it did not happen within {seconds:g} s"
        time.sleep(0.005)


def ticked(times: int) -> None:
    """Waits for this many more ticks of this process's sampler."""
    from mlflow_sysmetrics import status

    before = status().ticks
    eventually(lambda: status().ticks >= before + times)


def watched(seconds: float = 0.3) -> None:
    """Waits until `seconds` after the first tick of every run attached in this process.

    A rate covers at least 0.15 s from one tick to the next, so after this time a run has every rate.
    """
    from mlflow_sysmetrics import status
    from mlflow_sysmetrics.daemon import process

    status()  # waits until the daemon is loaded
    daemon = process._daemon
    assert daemon is not None
    eventually(
        lambda: set(status().attached) <= {series.key[1] for series in list(daemon.sampler._series)},
    )
    time.sleep(seconds)


def lasting_threads() -> list[str]:
    """Waits for our temporary threads to end, and returns the names of all other threads."""

    def names() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate() if thread.name != IDLE)

    eventually(lambda: all(name.startswith(LASTING) for name in names() if name.startswith("sysmetrics")))
    return names()
