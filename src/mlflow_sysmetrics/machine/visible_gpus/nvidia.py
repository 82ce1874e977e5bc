"""The NVIDIA GPUs and MIG slices that CUDA shows to the job, and their ordinals, without starting CUDA.

Source:  CUDA Programming Guide, "CUDA Environment Variables" (CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER);
         MIG User Guide, "CUDA Device Enumeration"; NVIDIA Container Toolkit, "Specialized Configurations".
List:    CUDA takes the devices in list order and stops at the first entry that this host does not have, or
         that is a prefix of two UUIDs; a repeated device empties the list.
MIG:     CUDA uses a GPU in MIG mode through its slices only. Since driver 570 it shows one compute instance
         of each GPU instance, along with GPUs that are not in MIG mode. Older drivers showed a single slice,
         the first visible one, and no GPUs beside it. Before driver 470 a slice was named
         "MIG-GPU-<uuid>/<gi>/<ci>".
Order:   indices follow NVML's order, which is CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA's default, FASTEST_FIRST,
         gives the same order for equal GPUs; for different models only CUDA knows it. If all GPUs are shown,
         the names keep NVML's order and `Selection.doubt` says so. The same holds if a GPU that does not
         respond precedes others, since CUDA may not count it. If indices leave some GPUs out, none is shown:
         it might be another job's. A list of UUIDs needs no order.
Toolkit: NVIDIA_VISIBLE_DEVICES is an instruction to the container toolkit, not to CUDA. "none" asks for a
         container without GPUs. An index, "all", a UUID or a directory was applied before this process
         started, so NVML lists exactly the requested devices. "void" carries no information: the toolkit
         sets it in every container that gets its GPUs through CDI (NVIDIA/gpu-operator#1994).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlflow_sysmetrics.machine.visible_gpus.environment import CUDA, hides_nvidia_gpus, read_cuda_list
from mlflow_sysmetrics.machine.visible_gpus.selection import (
    Chosen,
    GpuId,
    Selection,
    SliceId,
    follows_environment,
    select_listed,
)

_ORDER = "CUDA_DEVICE_ORDER"
_MIXED = f"{_ORDER} is FASTEST_FIRST and the GPUs differ"
_NVMLS = "PCI_BUS_ID"
_REMEDY = f"set {_ORDER}={_NVMLS}"
_MANY_SLICES_SINCE = 570  # MIG User Guide: "Starting with CUDA 12/R570"


@dataclass(frozen=True, slots=True)
class _Device:
    """One CUDA device: a GPU, or a slice of one."""

    index: int
    slice: SliceId | None = None


def select_nvidia(
    environ: Mapping[str, str],
    wanted: str,
    devices: Sequence[GpuId],
    *,
    same_model: bool,
    driver: str | None = None,
) -> Selection:
    """Returns the devices to watch; the devices that CUDA shows keep CUDA's ordinals.

    "process" selects the same devices as "visible": the caller skips those on which the job holds no memory,
    and the ordinals stay. "all" and a list number the host's devices, see `selection`.

    Args:
        environ: environment variables of the job.
        wanted: "visible", "process", "all" or a list, as `Settings.gpus`.
        devices: all devices that NVML lists, in its order.
        same_model: True if all devices are of one model, so that none is faster than another.
        driver: version of the driver, "570.133.20"; None is treated as a recent one.
    """
    if not follows_environment(wanted):
        return select_listed(wanted, devices, "NVIDIA")
    if hides_nvidia_gpus(environ):
        return Selection()
    doubt = None
    if CUDA in environ:
        listed = read_cuda_list(environ[CUDA])
        requested = _named(listed.uuids, devices) if listed.uuids else _indexed(listed.indices, devices)
        doubt = listed.doubt or _unfound(listed.uuids, devices)
        ordered = bool(listed.uuids)
    else:
        requested = [_Device(device.index) for device in devices]
        ordered = False
    shown = _enumerated(requested, devices, driver)
    picks_by_index = not ordered and shown and len({one.index for one in requested}) < len(devices)
    if picks_by_index and not same_model and environ.get(_ORDER) != _NVMLS:
        return Selection(doubt=f"{_MIXED}, so {CUDA} may mean other GPUs: {_REMEDY}, or name UUIDs")
    if not ordered and shown:
        doubt = (
            doubt
            or _order_doubt(environ, devices, same_model=same_model)
            or _silent_doubt(max(one.index for one in shown), devices)
        )
    chosen = (Chosen(ordinal, device.index, device.slice) for ordinal, device in enumerate(shown))
    return Selection(tuple(chosen), doubt)


def _indexed(indices: Sequence[int], devices: Sequence[GpuId]) -> list[_Device]:
    listed = []
    for place in indices:
        if place >= len(devices):
            break
        listed.append(_Device(devices[place].index))
    return listed


def _named(entries: Sequence[str], devices: Sequence[GpuId]) -> list[_Device]:
    named: list[_Device] = []
    for entry in entries:
        matching = _matching(entry, devices)
        if len(matching) != 1:
            break
        if matching[0] in named:
            return []
        named += matching
    return named


def _matching(entry: str, devices: Sequence[GpuId]) -> list[_Device]:
    gpus = [_Device(device.index) for device in devices if device.uuid.startswith(entry)]
    slices = [
        _Device(device.index, piece)
        for device in devices
        for piece in device.slices
        if piece.uuid.startswith(entry) or _old_name(device, piece) == entry
    ]
    return gpus + slices


def _old_name(device: GpuId, piece: SliceId) -> str:
    return f"MIG-{device.uuid}/{piece.gpu_instance}/{piece.compute_instance}"


def _enumerated(requested: Sequence[_Device], devices: Sequence[GpuId], driver: str | None) -> list[_Device]:
    """Returns the devices that CUDA shows for those requested, some of which may be in MIG mode."""
    by_index = {device.index: device for device in devices}
    usable = [one for each in requested for one in _usable(each, by_index[each.index])]
    if _release(driver) < _MANY_SLICES_SINCE:
        return [one for one in usable if one.slice][:1] or usable
    per_instance = {_instance(one): one for one in reversed(usable)}
    return [one for one in usable if per_instance[_instance(one)] is one]


def _usable(device: _Device, gpu: GpuId) -> Iterator[_Device]:
    if device.slice is not None or not (gpu.mig or gpu.slices):
        yield device
    else:
        yield from (_Device(gpu.index, piece) for piece in gpu.slices)


def _instance(device: _Device) -> tuple[int, int | str]:
    """Returns the unit of which CUDA shows one device: the GPU instance of a slice, or the GPU."""
    if device.slice is None:
        return device.index, ""
    known = device.slice.gpu_instance >= 0
    return device.index, device.slice.gpu_instance if known else device.slice.uuid


def _release(driver: str | None) -> int:
    """Returns 570 of "570.133.20"."""
    release = (driver or "").partition(".")[0]
    return int(release) if release.isdecimal() else _MANY_SLICES_SINCE


def _unfound(entries: Sequence[str], devices: Sequence[GpuId]) -> str | None:
    """Returns why the entry that ended the list might still name a device; None if it cannot."""
    entry = next((entry for entry in entries if len(_matching(entry, devices)) != 1), "")
    small = entry[:4] + entry[4:].lower()
    if small != entry and _matching(small, devices):
        return f"{CUDA} contains {entry!r}, a UUID in capitals: write it as nvidia-smi -L does"
    if entry.startswith("MIG-") and not _matching(entry, devices):
        return f"{CUDA} names a MIG device that is not listed"
    return None


def _silent_doubt(last: int, devices: Sequence[GpuId]) -> str | None:
    """Returns the doubt if CUDA may skip a GPU that precedes the last one shown."""
    silent = next((device.index for device in devices if not device.uuid and device.index <= last), None)
    if silent is None:
        return None
    doubt = f"GPU {silent} does not report its UUID, so CUDA may not count it"
    return f"{doubt}: name the others by theirs in {CUDA}"


def _order_doubt(environ: Mapping[str, str], devices: Sequence[GpuId], *, same_model: bool) -> str | None:
    sliced = sum(1 for device in devices if device.slices)
    if environ.get(_ORDER) == _NVMLS or (same_model and sliced in (0, len(devices))):
        return None
    return f"{_MIXED}, so their numbers follow NVML's order, which may differ from CUDA's: {_REMEDY}"
