"""Names and units for others: OpenTelemetry's semantic conventions, and what Prometheus makes of them.

Source:  https://opentelemetry.io/docs/specs/semconv/system/, 1.44. A name marked as an extension is in their
         style, because the conventions have none for it.
Units:   ratios from 0 to 1, bytes, seconds, joules, watts, degrees Celsius, hertz.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from mlflow_sysmetrics.exports.readings import Snapshot, metric_of

Instrument = Literal["gauge", "updowncounter", "counter"]

_PERCENT, _MEGABYTE, _WATT_HOUR, _MEGAHERTZ = 0.01, 1e6, 3600.0, 1e6
# https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
_COUNT = "_count"
_PROMETHEUS_UNITS = {
    "1": "ratio",
    "By": "bytes",
    "By/s": "bytes_per_second",
    "Cel": "celsius",
    "Hz": "hertz",
    "J": "joules",
    "W": "watts",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What a metric of ours is called elsewhere.

    Attributes:
        name: as OpenTelemetry has it.
        unit: in UCUM, as OpenTelemetry has it.
        factor: what a value of ours is multiplied with.
        instrument: a level, a level that may be added up over devices, or a total.
        attributes: of every value.
        device: the attribute that names the GPU or the filesystem; "" for neither.
        extension: whether the semantic conventions have no such name.
    """

    name: str
    unit: str
    factor: float = 1.0
    instrument: Instrument = "gauge"
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    device: str = ""
    extension: bool = False

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus, as OpenTelemetry's own translation has it.

        Except for the ending "_count", which Prometheus keeps for histograms: a plural says the same.
        """
        words = self.name.replace(".", "_")
        if words.endswith(_COUNT):
            words = f"{words.removesuffix(_COUNT)}s"
        unit = _PROMETHEUS_UNITS.get(self.unit, "")
        if unit and not words.endswith(f"_{unit}"):
            words = f"{words}_{unit}"
        return f"{words}_total" if self.instrument == "counter" else words


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the last tick for others.

    Attributes:
        exported: its name and unit.
        meaning: what it is, in a sentence.
        attributes: which device it is of, and more.
        value: in the unit of `exported`.
        age: seconds since it was read.
    """

    exported: Exported
    meaning: str
    attributes: Mapping[str, str]
    value: float
    age: float


_Attributes = Mapping[str, str]
_NONE: _Attributes = MappingProxyType({})


def _share(
    name: str, attributes: _Attributes = _NONE, *, device: str = "", extension: bool = False
) -> Exported:
    return Exported(name, "1", _PERCENT, attributes=attributes, device=device, extension=extension)


def _amount(
    name: str, attributes: _Attributes = _NONE, *, device: str = "", extension: bool = False
) -> Exported:
    return Exported(name, "By", _MEGABYTE, "updowncounter", attributes, device=device, extension=extension)


def _speed(name: str, attributes: _Attributes, *, device: str = "") -> Exported:
    return Exported(name, "By/s", _MEGABYTE, attributes=attributes, device=device, extension=True)


def _errors(name: str, attributes: _Attributes = _NONE, *, device: str = "") -> Exported:
    return Exported(name, "{error}", 1.0, "counter", attributes, device=device)


_USED = {"system.memory.state": "used"}
_SENDS, _RECEIVES = {"network.io.direction": "transmit"}, {"network.io.direction": "receive"}
_FILESYSTEM, _FILESYSTEM_STATE = "system.filesystem.name", "system.filesystem.state"
_DIRECTORY = {_FILESYSTEM: "working_directory"}
_GPU = "hw.id"
_OF_GPU, _OF_CPU = {"hw.type": "gpu"}, {"hw.type": "cpu", _GPU: "cpu"}
_PLACE, _FAULT = "hw.sensor_location", "error.type"

#: name of a metric in the catalogue -> what it is elsewhere
EXPORTED: Mapping[str, Exported] = {
    "cpu_utilization_percentage": _share("system.cpu.utilization"),
    "host_cpu_utilization_percentage": _share("system.cpu.utilization"),
    "cpu_throttled_percentage": _share("container.cpu.throttled", extension=True),
    "system_memory_usage_megabytes": _amount("system.memory.usage", _USED),
    "system_memory_usage_percentage": _share("system.memory.utilization", _USED),
    "host_memory_usage_percentage": _share("system.memory.utilization", _USED),
    "memory_available_megabytes": _amount("system.memory.linux.available"),
    "swap_usage_megabytes": _amount("system.paging.usage", {"system.paging.state": "used"}),
    "memory_oom_kills": Exported("container.memory.oom_kills", "{kill}", 1.0, "counter", extension=True),
    "cpu_pressure_percentage": _share("container.pressure", {"resource": "cpu"}, extension=True),
    "memory_pressure_percentage": _share("container.pressure", {"resource": "memory"}, extension=True),
    "io_pressure_percentage": _share("container.pressure", {"resource": "io"}, extension=True),
    "process_cpu_percentage": Exported("process.cpu.usage", "{cpu}", _PERCENT, extension=True),
    "process_memory_rss_megabytes": _amount("process.memory.usage"),
    "process_memory_uss_megabytes": _amount("process.memory.private", extension=True),
    "process_threads": Exported("process.thread.count", "{thread}", 1.0, "updowncounter"),
    "process_open_files": Exported(
        "process.unix.file_descriptor.count", "{file_descriptor}", 1.0, "updowncounter"
    ),
    "process_children": Exported(
        "process.descendant.count", "{process}", 1.0, "updowncounter", extension=True
    ),
    "cpu_energy_watt_hours": Exported("hw.energy", "J", _WATT_HOUR, "counter", _OF_CPU),
    "cpu_power_watts": Exported("hw.power", "W", attributes=_OF_CPU),
    "disk_usage_percentage": _share("system.filesystem.utilization", _DIRECTORY),
    "disk_usage_megabytes": _amount("system.filesystem.usage", {**_DIRECTORY, _FILESYSTEM_STATE: "used"}),
    "disk_available_megabytes": _amount("system.filesystem.usage", {**_DIRECTORY, _FILESYSTEM_STATE: "free"}),
    "disk_{name}_usage_percentage": _share("system.filesystem.utilization", device=_FILESYSTEM),
    "disk_{name}_usage_megabytes": _amount(
        "system.filesystem.usage", {_FILESYSTEM_STATE: "used"}, device=_FILESYSTEM
    ),
    "disk_{name}_available_megabytes": _amount(
        "system.filesystem.usage", {_FILESYSTEM_STATE: "free"}, device=_FILESYSTEM
    ),
    "disk_read_megabytes_per_second": _speed("system.disk.io.rate", {"disk.io.direction": "read"}),
    "disk_write_megabytes_per_second": _speed("system.disk.io.rate", {"disk.io.direction": "write"}),
    "disk_busy_percentage": _share("system.disk.utilization", extension=True),
    "network_receive_megabytes": Exported("system.network.io", "By", _MEGABYTE, "counter", _RECEIVES),
    "network_transmit_megabytes": Exported("system.network.io", "By", _MEGABYTE, "counter", _SENDS),
    "network_receive_megabytes_per_second": _speed("system.network.io.rate", _RECEIVES),
    "network_transmit_megabytes_per_second": _speed("system.network.io.rate", _SENDS),
    "network_errors": _errors("system.network.errors"),
    "infiniband_receive_megabytes_per_second": _speed("hw.network.io.rate", _RECEIVES),
    "infiniband_transmit_megabytes_per_second": _speed("hw.network.io.rate", _SENDS),
    "gpu_{i}_utilization_percentage": _share("hw.gpu.utilization", device=_GPU),
    "gpu_{i}_memory_usage_megabytes": _amount("hw.gpu.memory.usage", device=_GPU),
    "gpu_{i}_memory_usage_percentage": _share("hw.gpu.memory.utilization", device=_GPU),
    "gpu_{i}_process_memory_megabytes": _amount("process.gpu.memory.usage", device=_GPU, extension=True),
    "gpu_{i}_power_usage_watts": Exported("hw.power", "W", attributes=_OF_GPU, device=_GPU),
    "gpu_{i}_power_usage_percentage": _share("hw.gpu.power.utilization", device=_GPU, extension=True),
    "gpu_{i}_energy_watt_hours": Exported("hw.energy", "J", _WATT_HOUR, "counter", _OF_GPU, device=_GPU),
    "gpu_{i}_temperature_celsius": Exported(
        "hw.temperature", "Cel", attributes={**_OF_GPU, _PLACE: "gpu"}, device=_GPU
    ),
    "gpu_{i}_memory_temperature_celsius": Exported(
        "hw.temperature", "Cel", attributes={**_OF_GPU, _PLACE: "memory"}, device=_GPU
    ),
    "gpu_{i}_throttled_percentage": _share("hw.gpu.throttled", device=_GPU, extension=True),
    "gpu_{i}_ecc_errors": _errors("hw.errors", {**_OF_GPU, _FAULT: "ecc"}, device=_GPU),
    "gpu_{i}_xid_errors": _errors("hw.errors", {**_OF_GPU, _FAULT: "xid"}, device=_GPU),
    "gpu_{i}_remapped_rows": _errors("hw.errors", {**_OF_GPU, _FAULT: "remapped_row"}, device=_GPU),
    "gpu_{i}_torch_allocated_megabytes": _amount(
        "process.gpu.torch.memory", {"state": "allocated"}, device=_GPU, extension=True
    ),
    "gpu_{i}_torch_reserved_megabytes": _amount(
        "process.gpu.torch.memory", {"state": "reserved"}, device=_GPU, extension=True
    ),
    "gpu_{i}_sm_clock_megahertz": Exported(
        *("hw.gpu.speed", "Hz", _MEGAHERTZ, "gauge"), {"domain": "sm"}, device=_GPU, extension=True
    ),
    "gpu_{i}_memory_clock_megahertz": Exported(
        *("hw.gpu.speed", "Hz", _MEGAHERTZ, "gauge"), {"domain": "memory"}, device=_GPU, extension=True
    ),
    "gpu_{i}_memory_utilization_percentage": _share("hw.gpu.memory.busy", device=_GPU, extension=True),
    "gpu_{i}_sm_active_percentage": _share("hw.gpu.sm.active", device=_GPU, extension=True),
    "gpu_{i}_sm_occupancy_percentage": _share("hw.gpu.sm.occupancy", device=_GPU, extension=True),
    "gpu_{i}_tensor_active_percentage": _share("hw.gpu.tensor.active", device=_GPU, extension=True),
    "gpu_{i}_dram_active_percentage": _share("hw.gpu.dram.active", device=_GPU, extension=True),
    **{
        f"gpu_{{i}}_{link}_{word}_megabytes_per_second": _speed(
            "hw.gpu.io.rate", {"link": link, **direction}, device=_GPU
        )
        for link in ("pcie", "nvlink")
        for word, direction in (("receive", _RECEIVES), ("transmit", _SENDS))
    },
}

#: the same for a job that is limited to a part of the host, whose own values these are then
UNDER_LIMIT: Mapping[str, Exported] = {
    "cpu_utilization_percentage": _share("container.cpu.utilization", extension=True),
    "system_memory_usage_megabytes": _amount("container.memory.working_set"),
    "system_memory_usage_percentage": _share("container.memory.utilization", extension=True),
    "memory_available_megabytes": _amount("container.memory.available"),
    "swap_usage_megabytes": _amount("container.memory.swap", extension=True),
}
# What the points of a run say; elsewhere a total counts from some moment, and its growth is looked at.
_SINCE = re.compile(",? since the run was attached")
# These are read only where the job's share is not the host's.
_SHOWS_LIMIT = {
    "cpu_utilization_percentage": "host_cpu_utilization_percentage",
    **dict.fromkeys([name for name in UNDER_LIMIT if "cpu" not in name], "host_memory_usage_percentage"),
}


def exported(snapshot: Snapshot) -> Iterator[Value]:
    """Yields what a snapshot says, by the names of others; leaves out what is not ours."""
    for key, reading in snapshot.items():
        metric, device = metric_of(key)
        if metric is None:
            continue
        limit = _SHOWS_LIMIT.get(metric.name)
        found = UNDER_LIMIT[metric.name] if limit in snapshot else EXPORTED[metric.name]
        attributes = {**found.attributes, found.device: device} if found.device else found.attributes
        meaning = _SINCE.sub("", metric.meaning)
        yield Value(found, meaning, attributes, reading.value * found.factor, reading.age)
