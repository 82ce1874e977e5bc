"""How well a device is used: multiprocessors, tensor cores, memory, links.

Source:  GPM, one call for all of them (see `gpm`). It gives link rates in MiB/s. Where a device has no GPM,
         the counters of its links (see `links`). A series that began with one of the two stays with it.
Absent:  the links of a MIG slice: they are the whole GPU's, and nothing says which part of them it used.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_sysmetrics.collectors.catalogue import gpu as catalogue
from mlflow_sysmetrics.collectors.contract import MEGABYTE, PERCENT
from mlflow_sysmetrics.collectors.nvml import gpm
from mlflow_sysmetrics.collectors.nvml.device import Device, Reading
from mlflow_sysmetrics.collectors.nvml.library import Nvml, NvmlError, Verdict
from mlflow_sysmetrics.samples import Metric, Sample

_SHARES = {
    gpm.SM_UTIL: catalogue.GPU_SM_ACTIVE,
    gpm.SM_OCCUPANCY: catalogue.GPU_SM_OCCUPANCY,
    gpm.ANY_TENSOR_UTIL: catalogue.GPU_TENSOR_ACTIVE,
    gpm.DRAM_BW_UTIL: catalogue.GPU_DRAM_ACTIVE,
}
_LINKS = {
    gpm.PCIE_RX_PER_SEC: catalogue.GPU_PCIE_RECEIVE,
    gpm.PCIE_TX_PER_SEC: catalogue.GPU_PCIE_TRANSMIT,
    gpm.NVLINK_RX_PER_SEC: catalogue.GPU_NVLINK_RECEIVE,
    gpm.NVLINK_TX_PER_SEC: catalogue.GPU_NVLINK_TRANSMIT,
}
_MEBIBYTE = 1024**2


class Profile(Reading):
    """What GPM says of a device.

    Attributes:
        supported: the device has it; None until it has answered.
        counted: links that are read from counters.
    """

    name = "GPM"

    def __init__(self, nvml: Nvml, device: Device) -> None:
        self.supported: bool | None = None
        self.counted: set[Metric] = set()
        self._device = device
        self._gpm = gpm.Gpm(nvml, device)
        self._metrics = tuple(_SHARES) if device.slice else (*_SHARES, *_LINKS)

    def read(self, now: float) -> Iterator[Sample]:
        """Yields what the device did since the tick before."""
        try:
            values = self._gpm.values(self._metrics, now)
        except NvmlError as error:
            if self.supported is None and error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN):
                self.supported = False
            raise
        if values:
            self.supported = True
        for metric, value in values.items():
            if metric in _SHARES:
                yield self._device.sample(_SHARES[metric], min(value, PERCENT), self._gpm.span)
            elif _LINKS[metric] not in self.counted:
                yield self._device.sample(_LINKS[metric], value * _MEBIBYTE / MEGABYTE, self._gpm.span)

    def restart(self) -> None:
        """Forgets the sample of the tick before."""
        self._gpm.restart()
