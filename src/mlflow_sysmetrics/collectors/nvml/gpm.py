"""GPU performance monitoring: what the multiprocessors, the memory and the links did between two samples.

Source:  nvmlGpmSampleGet, inside MIG nvmlGpmMigSampleGet, and nvmlGpmMetricsGet; Hopper and newer, not on
         Windows. https://docs.nvidia.com/deploy/nvml-api/group__nvmlGpmFunctions.html
Window:  from one tick to the next, so nobody waits for it. NVML asks for 100 ms at least.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.collectors.nvml.device import Device, known
from mlflow_sysmetrics.collectors.nvml.library import NOT_SUPPORTED, Handle, Nvml, NvmlError, Verdict, refusal
from mlflow_sysmetrics.collectors.rhythm import Lap

# NVML_GPM_METRIC_* of nvml.h.
GRAPHICS_UTIL, SM_UTIL, SM_OCCUPANCY, ANY_TENSOR_UTIL, DRAM_BW_UTIL = 1, 2, 3, 5, 10
PCIE_TX_PER_SEC, PCIE_RX_PER_SEC = 20, 21
NVLINK_RX_PER_SEC, NVLINK_TX_PER_SEC = 60, 61
_VERSION = 1  # NVML_GPM_METRICS_GET_VERSION


class Gpm:
    """Two samples of one device, taken in turn.

    Attributes:
        span: seconds between the two samples of the last values.
    """

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self.span = 0.0
        self._nvml = nvml
        self._device = device
        self._lap = Lap()
        self._supported = False
        self._request: Handle = None
        self._buffers: list[Handle] = []
        self._primed = False

    def values(self, metrics: Sequence[int], now: float) -> Mapping[int, float]:
        """Returns the metrics that the device has, since the tick before; none at the first tick.

        Raises:
            NvmlError: the device has no GPM.
        """
        if not self._supported:
            self._prepare()
        span = self._lap.seconds(now)
        if span is None and self._primed:
            return {}
        before, after = self._buffers
        had_before, self._primed = self._primed, False
        self._sample(after)
        self._primed = True
        self._buffers.reverse()
        if span is None or not had_before:
            return {}
        self.span = span
        return self._compare(before, after, metrics)

    def restart(self) -> None:
        """Forgets the sample of the tick before: its counters may be those of another life."""
        self._primed = False
        self._supported = False

    def _prepare(self) -> None:
        if self._device.slice is not None and self._device.slice.gpu_instance < 0:
            raise NvmlError("its GPU instance is not known", Verdict.UNSUPPORTED)
        support = self._nvml.ask("nvmlGpmQueryDeviceSupport", self._device.card)
        if not support.isSupportedDevice:
            raise refusal(NOT_SUPPORTED)
        if self._request is None:
            self._request = self._nvml.new("c_nvmlGpmMetricsGet_t")
        while len(self._buffers) < 2:  # noqa: PLR2004 - the sample before and the one after
            buffer = self._nvml.ask("nvmlGpmSampleAlloc")
            self._buffers.append(buffer)
            weakref.finalize(self, _free, self._nvml, buffer, os.getpid()).atexit = False
        self._supported = True

    def _sample(self, buffer: Handle) -> None:
        piece = self._device.slice
        if piece is None:
            self._nvml.ask("nvmlGpmSampleGet", self._device.card, buffer)
        else:
            self._nvml.ask("nvmlGpmMigSampleGet", self._device.card, piece.gpu_instance, buffer)

    def _compare(self, before: Handle, after: Handle, metrics: Sequence[int]) -> dict[int, float]:
        request = self._request
        request.version = _VERSION
        request.numMetrics = len(metrics)
        request.sample1, request.sample2 = before, after
        for place, metric in enumerate(metrics):
            request.metrics[place].metricId = metric
        self._nvml.ask("nvmlGpmMetricsGet", request)
        found = {}
        for place, metric in enumerate(metrics):
            answer = request.metrics[place]
            value = None if answer.nvmlReturn else known(answer.value)
            if value is not None:
                found[metric] = value
        return found


def _free(nvml: Nvml, buffer: Handle, pid: int) -> None:
    if os.getpid() != pid:  # a forked child: the memory is its parent's copy, NVML is not its own
        return
    try:
        nvml.ask("nvmlGpmSampleFree", buffer)
    except NvmlError:
        return  # the library has ended, and the sample with it
