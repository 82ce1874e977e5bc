"""The runs that this process samples: its own, and those of another process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlflow_sysmetrics.cluster.election import Election, NodeRecord, base_directory, digest, this_member
from mlflow_sysmetrics.cluster.node import node_identity
from mlflow_sysmetrics.cluster.sampler import NodeSampler
from mlflow_sysmetrics.cluster.start import known_sampler, start_node_sampler
from mlflow_sysmetrics.errors import ThreadUnavailable, Unavailable
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.machine.host import JOB_SCOPE
from mlflow_sysmetrics.mlflow_api.secrets import cleaned
from mlflow_sysmetrics.runtime.native import RLock
from mlflow_sysmetrics.runtime.threads import start_thread

_NO_PROCESS = 2**31 - 1  # no id of a process anywhere; an empty list would stand for this one


class Run(NamedTuple):
    """An attached run."""

    tracking_uri: str
    run_id: str


class Share(NamedTuple):
    """What a node holds for some runs.

    Attributes:
        pids: their processes.
        gpus: UUIDs of their GPUs.
    """

    pids: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()


class OwnNode:
    """The node of a process that has attached its runs itself, under plain keys.

    It takes part in the elections of its node only to keep others from sampling the same: it leads, unless
    the run belongs to a job of a launcher, whose processes have elected one already.
    """

    def __init__(self, base: Callable[[], Path] = base_directory) -> None:
        self._base = base
        self._elections: dict[Run, Election] = {}
        self._pids: tuple[int, ...] = ()

    def hold(self, runs: Sequence[Run]) -> None:
        """Has this process, and no other of this node, sample these runs."""
        for run in self._elections.keys() - set(runs):
            self._release(self._elections.pop(run))
        for run in runs:
            if run not in self._elections and known_sampler(*run) is None:
                self._enter(run)
        for election in self._elections.values():
            if election.lead():
                election.keeps_leading(time.monotonic())
        if not self._elections:
            self._pids = ()

    def tell(self, pids: Iterable[int]) -> None:
        """Adds processes to those that are sampled."""
        found = tuple(sorted({*pids} - {os.getpid()}))
        if found != self._pids and self._elections:
            self._pids = found
            JOB_SCOPE.update((os.getpid(), *found) if found else ())

    def _enter(self, run: Run) -> None:
        with contextlib.suppress(Unavailable):
            election = Election(self._base(), digest(*run, node_identity()))
            election.join(this_member(pids=(os.getpid(),)))
            self._elections[run] = election

    @staticmethod
    def _release(election: Election) -> None:
        if election.lead():
            election.agree(replace(election.record() or NodeRecord(), ended_at=time.time()))
        election.leave()


class Samplers:
    """The runs of another process that this process samples for its node.

    Args:
        start: starts the sampler of a run.
    """

    def __init__(self, start: Callable[..., NodeSampler] = start_node_sampler) -> None:
        self._start = start
        self._samplers: dict[Run, NodeSampler] = {}
        self._share = Share()

    def sample(self, ranks: Mapping[Run, int], share: Share) -> None:
        """Samples these runs and no others.

        Args:
            ranks: run -> number of this node, for its name.
            share: what this node holds for them.
        """
        for run in self._samplers.keys() - ranks.keys():
            self._samplers.pop(run).close(timeout=0)
        pids = share.pids or (_NO_PROCESS,)
        for run, rank in ranks.items():
            if run not in self._samplers:
                self._samplers[run] = self._start(
                    run.run_id, run.tracking_uri, rank=rank, pids=pids, gpus=share.gpus
                )
            elif share == self._share:
                continue
            self._samplers[run].update(pids=pids, gpus=share.gpus)
        self._share = share

    def close(self, timeout: float) -> None:
        """Ends all and waits at most so many seconds for the last points of each."""
        samplers, self._samplers = list(self._samplers.values()), {}
        for sampler in samplers:
            sampler.close(timeout)


class BackgroundSampler:
    """The sampler of a run in a process with an event loop, which must not wait for it.

    Args:
        tracking_uri: the run's tracking server.
        run_id: the run.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        self._run = Run(tracking_uri, run_id)
        self._lock = RLock()
        self._is_closed = False
        self._sampler: NodeSampler | None = None
        with contextlib.suppress(ThreadUnavailable):
            start_thread(self._start, "sysmetrics-node-start")

    def close(self) -> None:
        """Ends it without a wait: what is not delivered yet is in the journal."""
        with self._lock:
            self._is_closed = True
            sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.close(timeout=0)

    def _start(self) -> None:
        sampler = quietly_started(self._run)
        with self._lock:
            if not self._is_closed:
                self._sampler = sampler
                return
        if sampler is not None:
            sampler.close(timeout=0)


def quietly_started(run: Run, rank: int | None = None) -> NodeSampler | None:
    """Returns a sampler of this node; None if it cannot be started, of which there is a warning."""
    try:
        return start_node_sampler(run.run_id, run.tracking_uri, rank=rank)
    except Exception as error:  # noqa: BLE001 - the program's own work goes on
        Log().warning(
            "mlflow-sysmetrics: no sampler on this node: %s", cleaned(f"{type(error).__name__}: {error}")
        )
        return None
