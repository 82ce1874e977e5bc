"""Which devices NVML lists, and how to find one again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_sysmetrics.collectors.nvml.device import Device
from mlflow_sysmetrics.collectors.nvml.library import Handle, Nvml, NvmlError, Verdict
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuId, SliceId

_MIG_ENABLED = 1


@dataclass
class Listing:
    """The devices that NVML lists.

    Attributes:
        gpus: all GPUs of the host, including those that do not respond or whose UUID is unreadable, without
            one.
        handles: handles of the GPUs that respond, by index.
        slices: handles of MIG devices.
        same_model: True if no two GPUs have different names.
    """

    gpus: list[GpuId] = field(default_factory=list)
    handles: dict[int, Handle] = field(default_factory=dict)
    slices: dict[SliceId, Handle] = field(default_factory=dict)
    same_model: bool = True


def listing(nvml: Nvml) -> Listing:
    """Returns the GPUs and their MIG devices.

    Raises:
        NvmlError: NVML does not report their number.
    """
    found = Listing()
    names = set()
    for index in range(nvml.ask("nvmlDeviceGetCount")):
        uuid, mig, pieces = "", False, {}
        with contextlib.suppress(NvmlError):  # a GPU that fails keeps its place
            handle = found.handles[index] = nvml.ask("nvmlDeviceGetHandleByIndex", index)
            with contextlib.suppress(NvmlError):
                names.add(nvml.ask("nvmlDeviceGetName", handle))
            with contextlib.suppress(NvmlError):
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
        NvmlError: NVML does not report it.
    """
    uuid = nvml.ask("nvmlDeviceGetUUID", handle)
    if not isinstance(uuid, bytes):
        return str(uuid)
    try:
        return uuid.decode()
    except UnicodeDecodeError as error:
        raise NvmlError("the answer is not valid text", Verdict.TROUBLE) from error


def find(nvml: Nvml, device: Device) -> None:
    """Updates the handles of a device.

    Raises:
        NvmlError: it is not there.
    """
    # Initialised again, since a reset may have undone an earlier call; another call only increments a
    # counter.
    nvml.ask("nvmlInit")
    if device.uuid:
        handle = _by_uuid(nvml, device)
    else:
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", device.index)
        device.uuid = uuid_of(nvml, handle)
    card = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) if device.slice else handle
    device.handle, device.card = handle, card


def _by_uuid(nvml: Nvml, device: Device) -> Handle:
    try:
        return nvml.ask("nvmlDeviceGetHandleByUUID", device.uuid)
    except NvmlError as error:
        if error.verdict is Verdict.LOST or device.slice:
            raise
        handle = nvml.ask("nvmlDeviceGetHandleByIndex", device.index)
        if uuid_of(nvml, handle) != device.uuid:  # its place was taken by another one
            raise
        return handle


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
            continue  # places without a slice answer "not found"
        yield SliceId(uuid, _instance(nvml, "Gpu", piece), _instance(nvml, "Compute", piece)), piece


def _instance(nvml: Nvml, kind: str, piece: Handle) -> int:
    try:
        return int(nvml.ask(f"nvmlDeviceGet{kind}InstanceId", piece))
    except NvmlError:
        return SliceId("").gpu_instance  # the default, for an unknown id
