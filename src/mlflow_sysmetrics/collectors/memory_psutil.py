"""Memory and swap space of a host that is not Linux.

Source:  psutil.virtual_memory and psutil.swap_memory: GlobalMemoryStatusEx on Windows, host_statistics64 of
         Mach on macOS.
Units:   megabytes (1e6 bytes), percent of the host's memory.
Cost:    two calls.
Absent:  swap, if there is none.
Check:   python -c "import psutil; print(psutil.virtual_memory(), psutil.swap_memory())"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import psutil

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import cpu_and_memory as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT, Collector
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.reasons import refusal, why_refused
from mlflow_sysmetrics.samples import Family, Metric, Sample


class MemoryPsutil(Collector):
    """Memory of the host that is in use."""

    family: ClassVar[Family] = Family.MEMORY
    metrics: ClassVar[tuple[Metric, ...]] = (
        catalogue.MEMORY_USAGE,
        catalogue.MEMORY_USAGE_PERCENTAGE,
        catalogue.MEMORY_AVAILABLE,
        catalogue.SWAP_USAGE,
    )

    def __init__(self, host: Host) -> None:
        self._lasting_gaps: tuple[str, ...] = ()
        try:
            psutil.virtual_memory()
        except (psutil.Error, OSError) as error:
            raise Unavailable(why_refused("virtual_memory", error)) from error
        try:
            self._has_swap = psutil.swap_memory().total > 0
        except (psutil.Error, OSError) as error:
            self._has_swap = False
            self.gaps = self._lasting_gaps = (f"no swap usage: {refusal(error)}",)

    def collect(self, now: float) -> Iterator[Sample]:
        """Yields used memory from `used`, as MLflow's monitor does; what is available; swap in use."""
        memory = psutil.virtual_memory()
        gaps = [*self._lasting_gaps]
        if not memory.total or not bounds.HOST_BYTES.holds(memory.total):
            self.gaps = (*gaps, "psutil.virtual_memory reports no size that a machine can have")
            return
        if 0 <= memory.used <= memory.total:
            yield catalogue.MEMORY_USAGE.sample(memory.used / MEGABYTE)
            yield catalogue.MEMORY_USAGE_PERCENTAGE.sample(PERCENT * memory.used / memory.total)
        else:
            gaps.append("no memory usage: more is said to be in use than there is")
        if 0 <= memory.available <= memory.total:
            yield catalogue.MEMORY_AVAILABLE.sample(memory.available / MEGABYTE)
        else:
            gaps.append("no available memory: more is said to be available than there is")
        if self._has_swap:
            swap = psutil.swap_memory()
            if 0 <= swap.used <= swap.total:
                yield catalogue.SWAP_USAGE.sample(swap.used / MEGABYTE)
            else:
                gaps.append("no swap usage: more is said to be in use than there is")
        self.gaps = tuple(gaps)
