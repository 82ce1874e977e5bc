"""Which of a host's GPUs are watched, in types that need no vendor library.

``MLFLOW_SYSMETRICS_GPUS=all`` and a list number the host's devices, not the program's: a GPU keeps its own
index (NVML's, which ``nvidia-smi`` prints), so ``1,3`` gives ``gpu_1_...`` and ``gpu_3_...``. Slices have no
index of their own; they are numbered after the last GPU, in the order of ``nvidia-smi -L``. A list holds
indices and prefixes of UUIDs, each of which must match one device: "0", "GPU-8932f937", "MIG-3e20". On a
host with GPUs of several vendors the indices are NVIDIA's, or AMD's if there is no NVIDIA GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlflow_sysmetrics.settings import GPUS

_ALL = "all"
# With "process" the collector shows only the visible GPUs that the job uses now; the ordinals stay.
_FROM_THE_ENVIRONMENT = ("visible", "process")


class SliceId(NamedTuple):
    """One MIG device: a compute instance of a GPU instance of a GPU.

    Attributes:
        uuid: "MIG-...", as ``nvidia-smi -L`` lists it.
        gpu_instance: id of its GPU instance; -1 if unknown.
        compute_instance: its id within the GPU instance; -1 if unknown.
    """

    uuid: str
    gpu_instance: int = -1
    compute_instance: int = -1


@dataclass(frozen=True, slots=True)
class GpuId:
    """One physical GPU.

    Attributes:
        index: its position in the vendor's own order: NVML's, ROCm's, or that of the PCI bus.
        uuid: the UUID as the vendor's tools write it; "" if unknown.
        slices: its MIG devices in NVML's order; empty if it is not sliced.
        mig: True in MIG mode, in which CUDA can use only its slices.
    """

    index: int
    uuid: str
    slices: tuple[SliceId, ...] = ()
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """One watched device.

    Attributes:
        ordinal: its number in the keys, ``gpu_<ordinal>_...``.
        index: the `GpuId.index` of the GPU.
        slice: the slice of that GPU, or None for the whole GPU.
    """

    ordinal: int
    index: int
    slice: SliceId | None = None


class Selection(NamedTuple):
    """The watched devices.

    Attributes:
        chosen: in the order of their ordinals, which are unique.
        doubt: why the program may see other devices or other ordinals; one clause.
        missing: entries of MLFLOW_SYSMETRICS_GPUS that this host does not have, one clause each.
    """

    chosen: tuple[Chosen, ...] = ()
    doubt: str | None = None
    missing: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[str, ...]:
        """The doubt and the missing entries, in the form of `Collector.gaps`."""
        return (self.doubt, *self.missing) if self.doubt else self.missing

    @property
    def places(self) -> int:
        """Number of ordinals in use: one more than the highest, as `GpuOrdinals.first` counts."""
        return self.chosen[-1].ordinal + 1 if self.chosen else 0


def follows_environment(wanted: str) -> bool:
    """True if the job's environment decides, not a list given by the user."""
    return wanted.strip().lower() in _FROM_THE_ENVIRONMENT


def select_listed(wanted: str, devices: Sequence[GpuId], vendor: str) -> Selection:
    """Returns the devices of one vendor that "all" or a list of indices and UUIDs selects.

    Args:
        wanted: "all" or the list, as `Settings.gpus`.
        devices: all of the vendor's devices.
        vendor: its name, for the clauses about missing devices.
    """
    everything = _everything(devices)
    if wanted.strip().lower() == _ALL:
        return Selection(tuple(everything))
    indices: set[int] = set()
    missing: list[str] = []
    for word in filter(None, (word.strip() for word in wanted.split(","))):
        matching = [one.ordinal for one in everything if _names(word, one, devices)]
        if len(matching) == 1:
            indices.update(matching)
        else:
            reason = "matches more than one" if matching else "matches none"
            missing.append(f"{GPUS}: {word} {reason} of this host's {vendor} GPUs")
    return Selection(tuple(one for one in everything if one.ordinal in indices), missing=tuple(missing))


def without_indices(wanted: str) -> str:
    """Returns a list without its indices, which belong to the first vendor that has GPUs here."""
    if follows_environment(wanted) or wanted.strip().lower() == _ALL:
        return wanted
    return ",".join(word for word in wanted.split(",") if not word.strip().isdecimal())


def _everything(devices: Sequence[GpuId]) -> list[Chosen]:
    whole = [Chosen(device.index, device.index) for device in devices]
    slices = [(device.index, piece) for device in devices for piece in device.slices]
    first = max((device.index + 1 for device in devices), default=0)
    return whole + [Chosen(first + place, index, piece) for place, (index, piece) in enumerate(slices)]


def _names(word: str, one: Chosen, devices: Sequence[GpuId]) -> bool:
    if word.isdecimal():
        return one.slice is None and word == str(one.index)
    uuid = one.slice.uuid if one.slice else next(each.uuid for each in devices if each.index == one.index)
    return uuid.lower().startswith(word.lower())


class GpuOrdinals:
    """Assigns ranges of ordinals, one per vendor, for the life of the process: ``gpu_0_...`` in the keys.

    NVIDIA's visible devices have CUDA's ordinals, from 0: they are looked for first. Devices of other vendors
    on the same host follow, in the order in which they are found, so that no key refers to two devices. A
    driver that is loaded later than another vendor's finds its numbers taken.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ordinals: dict[str, int] = {}
        self._uuids: dict[int, str] = {}

    def first(self, vendor: str, count: int) -> int:
        """Returns the first ordinal of a vendor's devices.

        Args:
            vendor: "nvidia", "amd", "intel", "apple"; a vendor keeps its range at later calls.
            count: the current number of its devices.
        """
        self._counts[vendor] = max(count, self._counts.get(vendor, 0))
        before = list(self._counts)[: list(self._counts).index(vendor)]
        return sum(self._counts[other] for other in before)

    def assign(self, uuid: str, ordinal: int) -> None:
        """Records the ordinal of a device, for collectors that know it by its UUID.

        Args:
            uuid: the UUID as NVML writes it, "GPU-..." or "MIG-...".
            ordinal: the number in the keys.
        """
        before = self._uuids.pop(ordinal, None)  # from a run with other devices
        if before is not None:
            self._ordinals.pop(_bare(before), None)
        self._ordinals[_bare(uuid)] = ordinal
        self._uuids[ordinal] = uuid

    def of(self, uuid: str) -> int | None:
        """Returns the ordinal of a watched device.

        Args:
            uuid: with or without the prefix "GPU-" or "MIG-", in any letter case.
        """
        return self._ordinals.get(_bare(uuid))

    def uuid(self, ordinal: int) -> str | None:
        """Returns the UUID of the device with an ordinal."""
        return self._uuids.get(ordinal)


def _bare(uuid: str) -> str:
    # CUDA and torch write only the sixteen bytes, in either case.
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
