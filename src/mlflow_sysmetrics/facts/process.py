"""The facts of this process's host, found once per process and kept over a fork if they were complete."""

from __future__ import annotations

import os
import threading

from mlflow_sysmetrics.facts.discovery import HostFacts
from mlflow_sysmetrics.machine.host import Host


class _OfThisProcess:
    """Holds the one `HostFacts` of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: HostFacts | None = None

    def get(self) -> HostFacts:
        with self._lock:
            if self._facts is None:
                self._facts = HostFacts(Host())
            return self._facts

    def after_fork(self) -> None:
        """In the child no thread of the parent's runs, and a lock may be held by one that is not there."""
        self._lock = threading.Lock()
        facts = self._facts
        if facts is None:
            return
        # Whoever still holds the parent's object must not wait for a thread that does not exist here.
        facts.after_fork()
        if not facts.complete:
            self._facts = None


_of_this_process = _OfThisProcess()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_this_process.after_fork)


def host_facts() -> HostFacts:
    """Returns the facts of the real host, one object per process.

    A forked child keeps complete facts; it looks for incomplete ones anew.
    """
    return _of_this_process.get()
