"""Waits for a state instead of a time: what takes milliseconds may take seconds on a busy machine.

Put on the path by pytest (`pythonpath` in pyproject.toml); the programs of the integration tests import it too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONG_SECONDS = 60.0  # what has not happened by then never will; only a test that fails waits so long


def eventually(holds: Callable[[], object], seconds: float = LONG_SECONDS) -> None:
    """Returns as soon as something holds.

    Raises:
        AssertionError: it does not within that time.
    """
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"it did not happen within {seconds:g} s"
        time.sleep(0.005)


def ticked(times: int) -> None:
    """Returns after so many more ticks of this process's sampler."""
    from mlflow_sysmetrics import status

    before = status().ticks
    eventually(lambda: status().ticks >= before + times)


def watched(seconds: float = 0.3) -> None:
    """Returns so long after each run that this process feeds has been looked at for the first time.

    A rate is over 0.15 s at least, from one tick to the next; so a run that lasts on for longer has them all.
    """
    from mlflow_sysmetrics import status
    from mlflow_sysmetrics.daemon import process

    daemon = process._daemon
    assert daemon is not None
    eventually(
        lambda: set(status().attached) <= {series.key[1] for series in list(daemon.sampler._series)},
    )
    time.sleep(seconds)


def lasting_threads() -> list[str]:
    """Returns the names of all threads but those of ours that end by themselves, which it waits for."""
    for thread in threading.enumerate():
        lasts = thread.name.startswith(("sysmetrics-sampler", "sysmetrics-sender", "sysmetrics-journal"))
        if thread.name.startswith("sysmetrics") and not lasts:
            thread.join(LONG_SECONDS)
    return sorted(thread.name for thread in threading.enumerate())
