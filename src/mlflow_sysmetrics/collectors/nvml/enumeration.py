"""Which devices NVML lists, and how one is found again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_sysmetrics.collectors.nvml.device import Device
from mlflow_sysmetrics.collectors.nvml.library import Handle, Nvml, NvmlError
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuId, SliceId

_MIG_ENABLED = 1


@dataclass
class Listing:
    """What NVML lists.

    Attributes:
        gpus: all GPUs of the host, those that do not answer too, without a UUID.
        handles: of the GPUs that answer, by their index.
        slices: handles of MIG devices.
        same_model: no two GPUs have different names.
    """

    gpus: list[GpuId] = field(default_factory=list)
    handles: dict[int, Handle] = field(default_factory=dict)
    slices: dict[SliceId, Handle] = field(default_factory=dict)
    same_model: bool = True


def listing(nvml: Nvml) -> Listing:
    """Returns the GPUs and their MIG devices.

    Raises:
        NvmlError: NVML does not tell how many there are.
    """
    found = Listing()
    names = set()
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        uuid, mig, pieces = "", False, {}
        with contextlib.suppress(NvmlError):  # what is known of it until then is enough for its place
            handle = found.handles[index] = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            with contextlib.suppress(NvmlError):
                names.add(nvml.ask("nvmlDeviceGetName", handle))
            uuid = uuid_of(nvml, handle)
            mig = _in_mig_mode(nvml, handle)
            if mig:
                pieces = dict(_slices(nvml, handle))
        found.gpus.append(GpuId(index, uuid, tuple(pieces), mig=mig))
        found.slices.update(pieces)
    found.same_model = len(names) <= 1
    return found


def uuid_of(nvml: Nvml, handle: Handle) -> str:
    """Returns a device's UUID as text; bindings before 11.5 return bytes.

    Raises:
        NvmlError: it does not tell.
    """
    uuid = nvml.ask("nvmlDeviceGetUUID", handle)
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def find(nvml: Nvml, device: Device) -> None:
    """Gives a device the handles that it has now.

    Raises:
        NvmlError: it is not there.
    """
    # Again, since a reset may have ended what an earlier call began; it only counts another user.
    nvml.ask("nvmlInit")
    if device.uuid:
        handle = nvml.ask("nvmlDeviceGetHandleByUUID", device.uuid)
    else:
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", device.index)
        device.uuid = uuid_of(nvml, handle)
    card = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) if device.slice else handle
    device.handle, device.card = handle, card


def _in_mig_mode(nvml: Nvml, handle: Handle) -> bool:
    try:
        current, _ = nvml.ask("nvmlDeviceGetMigMode", handle)
        return bool(current == _MIG_ENABLED)
    except NvmlError:
        return False


def _slices(nvml: Nvml, handle: Handle) -> Iterator[tuple[SliceId, Handle]]:
    for place in range(nvml.ask("nvmlDeviceGetMaxMigDeviceCount", handle)):
        try:
            piece = nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
            uuid = uuid_of(nvml, piece)
        except NvmlError:
            continue  # a place without a slice is "not found"
        yield SliceId(uuid, _instance(nvml, "Gpu", piece), _instance(nvml, "Compute", piece)), piece


def _instance(nvml: Nvml, kind: str, piece: Handle) -> int:
    try:
        return int(nvml.ask(f"nvmlDeviceGet{kind}InstanceId", piece))
    except NvmlError:
        return SliceId("").gpu_instance  # what stands for an unknown one
