"""Dask: a plugin that starts a sampler in each worker process; one of them per host is elected to sample.

The plugin is registered once per client and run. Workers that join later get it from the scheduler.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from distributed import WorkerPlugin, client, worker

from mlflow_sysmetrics.cluster.engines.samplers import Run

_ANSWERS_SECONDS = 30.0  # a scheduler may be busy


class Nodes:
    """The workers of the clusters that this process has clients of."""

    def __init__(self) -> None:
        self._registered: weakref.WeakKeyDictionary[Any, set[Run]] = weakref.WeakKeyDictionary()

    def is_connected(self) -> bool:
        """Returns whether the program has a client that is connected."""
        return any(True for _ in _clients())

    def reconcile(self, runs: Sequence[Run]) -> Sequence[int]:
        """Registers the plugins of these runs with each client, and removes those of other runs."""
        for one in _clients():
            known = self._registered.setdefault(one, set())
            for run in known - set(runs):
                known.discard(run)
                unregister(one, run)
            for run in runs:
                if run not in known:
                    known.add(run)
                    register(one, run)
        return ()

    def close(self, timeout: float) -> None:
        """Removes the plugins, which ends their samplers."""
        for one in _clients():
            for run in self._registered.pop(one, ()):
                with contextlib.suppress(Exception):  # the client was closed meanwhile
                    unregister(one, run, timeout)


def register(of: Any, run: Run) -> None:
    """Registers the plugin of a run; does nothing if it is registered.

    Args:
        of: a client, synchronous or not.
        run: the run.
    """
    plugin = _plugin_class()(*run)

    async def body() -> None:
        await of.register_plugin(plugin, name=_name(run))

    of.sync(body, asynchronous=False, callback_timeout=_ANSWERS_SECONDS)


def unregister(of: Any, run: Run, timeout: float = _ANSWERS_SECONDS) -> None:
    """Removes the plugin of a run, which ends its samplers."""

    async def body() -> None:
        await of.unregister_worker_plugin(_name(run))

    of.sync(body, asynchronous=False, callback_timeout=timeout)


def _name(run: Run) -> str:
    return f"mlflow-sysmetrics-{run.run_id}"


def _clients() -> Iterable[Any]:
    """Yields the connected clients of the program, without those that tasks have of their own workers."""
    of_workers = {getattr(one, "_client", None) for one in list(worker.Worker._instances)}  # noqa: SLF001
    for one in dict.fromkeys(list(client._global_clients.values())):  # noqa: SLF001 - no public list
        if one.status == "running" and one not in of_workers:
            yield one


def _plugin_class() -> type[WorkerPlugin]:
    """Returns the class of the plugin.

    It is made in a function so that it is pickled by value: a worker without this package takes it and does
    nothing, where one that cannot import the class of a plugin would fail to start.
    """

    class SystemMetrics(WorkerPlugin):  # type: ignore[misc]
        idempotent = True

        def __init__(self, tracking_uri: str, run_id: str) -> None:
            self.run = tracking_uri, run_id
            self.sampler: Any = None

        def setup(self, worker: Any) -> None:
            del worker
            with contextlib.suppress(ImportError):
                from mlflow_sysmetrics.cluster.engines.samplers import BackgroundSampler

                self.sampler = BackgroundSampler(*self.run)

        def teardown(self, worker: Any) -> None:
            del worker
            if self.sampler is not None:
                self.sampler.close()

        def __getstate__(self) -> dict[str, Any]:
            return {"run": self.run, "sampler": None}

    return SystemMetrics
