"""GPU performance monitoring (GPM): use of multiprocessors, tensor cores, memory and links between two ticks.

Source:  nvmlGpmSampleGet, inside MIG nvmlGpmMigSampleGet, and one nvmlGpmMetricsGet for all metrics; Hopper
         and newer, not on Windows. https://docs.nvidia.com/deploy/nvml-api/group__nvmlGpmFunctions.html
         Link rates are in MiB/s. Without GPM `links` reads the counters of the links instead; a series keeps
         the source it started with.
Window:  from one tick to the next, so no call waits for it. NVML asks for at least 100 ms.
Absent:  the links of a MIG slice: they belong to the whole GPU, and no counter shows a slice's part.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence

from mlflow_sysmetrics.collectors import bounds
from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading, known
from mlflow_sysmetrics.collectors.nvml.library import NOT_SUPPORTED, Handle, Nvml, NvmlError, Verdict, refusal
from mlflow_sysmetrics.collectors.rhythm import Lap
from mlflow_sysmetrics.samples import Metric, Sample

# NVML_GPM_METRIC_* of nvml.h.
GRAPHICS_UTIL, SM_UTIL, SM_OCCUPANCY, ANY_TENSOR_UTIL, DRAM_BW_UTIL = 1, 2, 3, 5, 10
PCIE_TX_PER_SEC, PCIE_RX_PER_SEC = 20, 21
NVLINK_RX_PER_SEC, NVLINK_TX_PER_SEC = 60, 61
_VERSION = 1  # NVML_GPM_METRICS_GET_VERSION


class Gpm:
    """Two samples of one device, taken alternately.

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
        """Returns the metrics that the device has, since the previous tick; none at the first tick.

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
        """Drops the sample of the previous tick: its counters may predate a reset."""
        self._primed = False
        self._supported = False

    def _prepare(self) -> None:
        if self._device.slice is not None and self._device.slice.gpu_instance < 0:
            raise NvmlError("its GPU instance is unknown", Verdict.UNSUPPORTED)
        support = self._nvml.ask("nvmlGpmQueryDeviceSupport", self._device.card)
        if not support.isSupportedDevice:
            raise refusal(NOT_SUPPORTED)
        if self._request is None:
            self._request = self._nvml.new("c_nvmlGpmMetricsGet_t")
        while len(self._buffers) < 2:  # noqa: PLR2004 - one sample before and one after
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
        values = {}
        for place, metric in enumerate(metrics):
            answer = request.metrics[place]
            value = None if answer.nvmlReturn else known(answer.value)
            if value is not None:
                values[metric] = value
        return values


def _free(nvml: Nvml, buffer: Handle, pid: int) -> None:
    if os.getpid() != pid:  # in a forked child NVML and the buffer belong to the parent
        return
    try:
        nvml.ask("nvmlGpmSampleFree", buffer)
    except NvmlError:
        return  # the library was shut down and freed the sample


_SHARES = {
    SM_UTIL: catalogue.GPU_SM_ACTIVE,
    SM_OCCUPANCY: catalogue.GPU_SM_OCCUPANCY,
    ANY_TENSOR_UTIL: catalogue.GPU_TENSOR_ACTIVE,
    DRAM_BW_UTIL: catalogue.GPU_DRAM_ACTIVE,
}
_LINKS = {
    PCIE_RX_PER_SEC: catalogue.GPU_PCIE_RECEIVE,
    PCIE_TX_PER_SEC: catalogue.GPU_PCIE_TRANSMIT,
    NVLINK_RX_PER_SEC: catalogue.GPU_NVLINK_RECEIVE,
    NVLINK_TX_PER_SEC: catalogue.GPU_NVLINK_TRANSMIT,
}
_MEBIBYTE = 1024**2
_FAILURES_TO_CHANGE = 3
MOST_PERCENT = 2 * PERCENT  # the clocks of two samples differ: a little above 100 is 100


class Profile(Reading):
    """The GPM metrics of a device.

    Attributes:
        supported: whether the device has GPM; None until it has answered.
        counted: links that are read from counters.
    """

    name = "GPM"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self.supported: bool | None = None
        self.counted: set[Metric] = set()
        self._failures = 0
        self._device = device
        self._gpm = Gpm(nvml, device)
        self._metrics = tuple(_SHARES) if device.slice else (*_SHARES, *_LINKS)

    def read(self, now: float) -> Iterator[Sample]:
        """Yields what the device did since the previous tick."""
        try:
            values = self._gpm.values(self._metrics, now)
        except NvmlError as error:
            final = error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN)
            self._failures += error.verdict is not Verdict.LOST
            if self.supported is None and (final or self._failures >= _FAILURES_TO_CHANGE):
                self.supported = False  # the counters of the links replace it from now on
            raise
        if values:
            self.supported = True
        for metric, value in values.items():
            if metric in _SHARES:
                if value <= MOST_PERCENT:
                    yield self._device.sample(_SHARES[metric], min(value, PERCENT), self._gpm.span)
            elif _LINKS[metric] not in self.counted and value * _MEBIBYTE <= bounds.NVLINK_BYTES:
                yield self._device.sample(_LINKS[metric], value * _MEBIBYTE / MEGABYTE, self._gpm.span)

    def restart(self) -> None:
        """Drops the sample of the previous tick."""
        self._gpm.restart()
