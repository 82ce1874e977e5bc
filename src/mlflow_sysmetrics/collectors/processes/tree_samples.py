"""Samples of a process tree, on every operating system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT
from mlflow_sysmetrics.collectors.processes.member import Holding
from mlflow_sysmetrics.collectors.processes.uss import UssRounds
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Kind, Metric, Sample

METRICS: tuple[Metric, ...] = (
    catalogue.PROCESS_CPU,
    catalogue.PROCESS_RSS,
    catalogue.PROCESS_USS,
    catalogue.PROCESS_THREADS,
    catalogue.PROCESS_OPEN_FILES,
    catalogue.PROCESS_CHILDREN,
)

_make = tuple.__new__  # a third of the cost of calling the class
_CPU, _RSS, _USS, _THREADS, _OPEN_FILES, _CHILDREN = (metric.name for metric in METRICS)
_RATE, _GAUGE = Kind.RATE, Kind.GAUGE
_MOST_BYTES = bounds.HOST_BYTES.most
Process = TypeVar("Process")


class ProcessSamples(Generic[Process]):
    """Keeps values for a later tick: CPU time until its lap ends, private memory until its sum is known.

    Args:
        read_uss: returns the private memory of a process in bytes, None if it cannot be read.

    Attributes:
        gaps: what is unknown about this process.
    """

    def __init__(self, read_uss: Callable[[Process], int | None]) -> None:
        self.gaps: tuple[str, ...] = ()
        self._uss = UssRounds(read_uss)
        self._lap = Lap()
        self._used = 0.0
        self._read_at = math.inf

    def take(
        self,
        now: float,
        used: float,
        processes: Sequence[Process],
        holdings: Sequence[Holding],
        roots: int = 1,
    ) -> Sequence[Sample]:
        """Returns the samples of one tick.

        Args:
            now: seconds of a clock that never goes back.
            used: CPU seconds that the tree has used since the last tick.
            processes: all living processes, this one first; at least one.
            holdings: what each process holds, this one first.
            roots: how many of them are no children of others.
        """
        self._used += used
        if now < self._read_at:  # the first tick, or a clock that was set back: a new lap starts
            self._used = 0.0
        self._read_at = now
        samples = []
        span = self._lap.seconds(now)
        if span is not None:
            samples.append(_make(Sample, (_CPU, _RATE, PERCENT * self._used / span, span)))
            self._used = 0.0
        alive, resident, threads, own_files = holdings[0]
        files = own_files or 0
        for one_alive, one_resident, one_threads, one_files in holdings[1:]:
            alive += one_alive
            resident += one_resident
            threads += one_threads
            files += one_files or 0
        if resident <= _MOST_BYTES:
            samples.append(_make(Sample, (_RSS, _GAUGE, resident / MEGABYTE, None)))
        if threads <= bounds.THREADS:
            samples.append(_make(Sample, (_THREADS, _GAUGE, threads, None)))
        if own_files is not None and files <= bounds.OPEN_FILES:
            samples.append(_make(Sample, (_OPEN_FILES, _GAUGE, files, None)))
        samples.append(_make(Sample, (_CHILDREN, _GAUGE, max(alive - roots, 0), None)))
        private = self._uss.advance(now, processes, resident)
        if private is not None:
            samples.append(_make(Sample, (_USS, _GAUGE, private / MEGABYTE, None)))
        if own_files is None or not self._uss.readable or self.gaps:
            self.gaps = (
                *(() if own_files is not None else ("open files cannot be counted",)),
                *(() if self._uss.readable else ("private memory cannot be read",)),
            )
        return samples
