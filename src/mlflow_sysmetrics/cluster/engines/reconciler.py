"""Tells the engines that this process is connected to which runs it has attached, in a thread of its own.

A program may connect to a cluster before or after it starts a run, and may disconnect at any time. So the
thread looks once a second which runs are attached and which engines are connected, and lets an engine
reconcile its nodes when that has changed, and every 30 s for nodes that come and go. It runs only in a
program that has imported an engine, and only while a run is attached.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol

from mlflow_sysmetrics.cluster.engines.samplers import OwnNode, Run
from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.loops import Loop
from mlflow_sysmetrics.runtime.native import Event, RLock

THREAD_NAME = "sysmetrics-engines"

#: library that a program imports for an engine -> our module for it
HOMES: Mapping[str, str] = {"ray": "ray", "distributed": "dask", "pyspark": "spark"}
_LOOK_SECONDS = 1.0
_RECONCILE_SECONDS = 30.0
_SOON_SECONDS = 5.0  # after a run has started: workers that it needs are being started, too
_SOON_UNTIL_SECONDS = 20.0
_ENDS_SECONDS = 5.0  # the default of MLFLOW_SYSMETRICS_FLUSH_TIMEOUT

_logger = Log()


class Attached(Protocol):
    """What holds a run attached in this process."""

    run_id: str
    tracking_uri: str

    @property
    def is_attached(self) -> bool:
        """Whether it still does."""


class Engine(Protocol):
    """A cluster that this process may be connected to; one thread calls its methods, which may raise."""

    def is_connected(self) -> bool:
        """Returns whether there is a cluster; must be cheap."""

    def reconcile(self, runs: Sequence[Run]) -> Iterable[int]:
        """Makes the other nodes sample these runs and no others.

        Returns:
            The processes on this node that work for the runs.
        """

    def close(self, timeout: float) -> None:
        """Ends everything on the nodes, and waits at most so many seconds for its last points."""


class Home(Protocol):
    """This process's own node."""

    def hold(self, runs: Sequence[Run]) -> None:
        """Has this process, and no other of this node, sample these runs."""

    def tell(self, pids: Iterable[int]) -> None:
        """Adds processes to those that are sampled."""


class _Told(NamedTuple):
    runs: tuple[Run, ...] = ()
    since: float = 0.0  # when these runs were first told
    at: float = 0.0  # when they were last told


class Reconciler:
    """Tells engines which runs are attached.

    Args:
        load: returns the engines whose library is imported; called at each look.
        home: this process's node.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, load: Callable[[], Iterable[Engine]], home: Home, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._home = home
        self._clock = clock
        self._lock = RLock()  # re-entrant: a signal handler may call in
        self._attached: dict[Run, Attached] = {}
        self._told: dict[Engine, _Told] = {}
        self._faults: set[str] = set()
        self._wake = Event()
        self._loop: Loop | None = None

    def add(self, attachment: Attached) -> None:
        """Has a run sampled on all nodes as long as it is attached here.

        Raises:
            ThreadUnavailable: no thread can be started.
        """
        with self._lock:
            self._attached[Run(attachment.tracking_uri, attachment.run_id)] = attachment
            loop = self._loop = self._loop or Loop(self._step, THREAD_NAME)
            if not loop.is_alive:
                loop.start()
        self._wake.set()

    def look(self) -> bool:
        """Reconciles where something has changed; returns whether runs are left."""
        with self._lock:
            for run in [run for run, one in self._attached.items() if not one.is_attached]:
                del self._attached[run]
            runs = tuple(self._attached)
        connected = [one for one in self._load() if self._is_connected(one)]
        for gone in self._told.keys() - connected:
            del self._told[gone]
        with self._guarded("this node"):
            self._home.hold(runs if connected else ())
        for engine in connected:
            with self._guarded(type(engine).__module__):
                self._tell(engine, runs)
        return bool(runs)

    def close(self, timeout: float) -> None:
        """Ends everything on the nodes."""
        with self._lock:
            self._attached.clear()
        ends = self._clock() + timeout
        for engine in list(self._told):
            with self._guarded(type(engine).__module__):
                engine.close(max(ends - self._clock(), 0.0))
        with self._guarded("this node"):
            self._home.hold(())

    def _is_connected(self, engine: Engine) -> bool:
        with self._guarded(type(engine).__module__):
            return engine.is_connected()
        return False

    def _tell(self, engine: Engine, runs: tuple[Run, ...]) -> None:
        now = self._clock()
        told = self._told.get(engine, _Told())
        if runs != told.runs:
            told = _Told(runs, since=now)
        elif not runs or now - told.at < self._pause(now - told.since):
            return
        self._told[engine] = told._replace(at=now)  # first: one that fails is tried again in 30 s
        if runs:
            self._home.tell(engine.reconcile(runs))
        else:
            engine.close(_ENDS_SECONDS)

    @staticmethod
    def _pause(age: float) -> float:
        return _SOON_SECONDS if age < _SOON_UNTIL_SECONDS else _RECONCILE_SECONDS

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - an engine that is being shut down may raise anything
            fault = cleaned(f"{what}: {type(error).__name__}: {error}")
            if fault not in self._faults:
                self._faults.add(fault)
                _logger.debug("mlflow-sysmetrics: nodes could not be reconciled: %s", fault)

    def _step(self) -> bool:
        self._wake.clear()
        if self.look():
            self._wake.wait(_LOOK_SECONDS)
            return True
        with self._lock:
            if self._attached:  # added meanwhile
                return True
            self._loop = None
            return False


_engines: dict[str, Engine] = {}
_reconciler: Reconciler | None = None


def start(attachment: Attached) -> None:
    """Has the nodes of the clusters that this process is connected to, now or later, sample a run.

    Never raises.

    Args:
        attachment: the run, which is sampled as long as it is attached here.
    """
    global _reconciler  # noqa: PLW0603 - one per process
    if _reconciler is None:
        _reconciler = Reconciler(_loaded, OwnNode())
        atexit.register(_end)  # before Ray's own, which was registered when the program imported it
    with contextlib.suppress(ThreadUnavailable):
        _reconciler.add(attachment)


def _loaded() -> list[Engine]:
    """Returns the engines whose library the program has imported."""
    for library, home in HOMES.items():
        module = sys.modules.get(library)
        if home not in _engines and module is not None and not _is_being_imported(module):
            _engines[home] = import_module(f"{__package__}.{home}").Nodes()
    return list(_engines.values())


def _is_being_imported(module: object) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _end() -> None:
    if _reconciler is not None:
        _reconciler.close(_ENDS_SECONDS)


def _forget_parent() -> None:
    """Leaves a forked child without engines: its threads are gone, and the agents belong to its parent."""
    global _reconciler  # noqa: PLW0603
    _reconciler = None
    _engines.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
