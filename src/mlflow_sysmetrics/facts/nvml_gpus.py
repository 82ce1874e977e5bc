"""NVIDIA GPUs through NVML, the library that comes with the driver.

Source:  nvmlDeviceGetName, ...GetUUID, ...GetMemoryInfo, nvmlSystemGetDriverVersion and
         nvmlSystemGetCudaDriverVersion_v2, through nvidia-ml-py.
         nvidia-smi is asked for what NVML does not report, or only as garbage. "unknown NVIDIA GPU" keeps the
         place of a GPU whose name neither reports.
Absent:  no NVML library: there is no NVIDIA driver.
MIG:     for a sliced GPU, the slices that CUDA shows; their names include the profile ("... MIG 3g.40gb").
Never:   nvmlShutdown. NVML counts its users per process, and another user may still need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts import nvidia_smi
from mlflow_sysmetrics.facts.values import MOST_GPU_BYTES, Gpu, GpuReport, readable
from mlflow_sysmetrics.machine.command import RunCommand
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus.nvidia import select_nvidia
from mlflow_sysmetrics.machine.visible_gpus.selection import GpuId, SliceId

_MIG_ENABLED = 1
_NAMELESS = nvidia_smi.NAMELESS
_UNREADABLE = "its name cannot be read"
# By name: the bindings have a class for each of NVML's errors. NVML's own messages do not say what to do.
_REASONS = {
    "NVMLError_DriverNotLoaded": "driver not loaded: load it (modprobe nvidia)",
    "NVMLError_GpuIsLost": "GPU is lost: reset it or reboot",
    "NVMLError_LibRmVersionMismatch": "driver/library version mismatch: reload the driver or reboot",
    "NVMLError_NoPermission": "no permission: this user needs to read and write /dev/nvidia*",
    "NVMLError_ResetRequired": "GPU needs a reset: nvidia-smi --gpu-reset, or reboot",
    # The bindings decode whatever a driver leaves in the buffer of a missing name.
    "UnicodeDecodeError": _UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class _Device:
    """One physical GPU and its slices, and the reason why they cannot be described."""

    identity: GpuId
    gpu: Gpu
    slices: Mapping[SliceId, Gpu] = field(default_factory=dict)
    problem: str = ""


def gpus(host: Host, run: RunCommand) -> GpuReport:
    """Returns the watched GPUs among those that NVML lists.

    Raises:
        Unavailable: NVML is installed but does not work, or does not list the slice that CUDA is told to use.
    """
    try:
        nvml = host.load_nvml()
    except ImportError:
        return GpuReport()
    try:
        nvml.nvmlInit()
        driver = _ask(nvml, "nvmlSystemGetDriverVersion")
        devices = [_device(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError_LibraryNotFound:
        return GpuReport()
    except nvml.NVMLError as error:
        raise Unavailable(f"NVML: {_reason(error)}") from error
    if not devices:
        return GpuReport()
    # As the collectors compare them, which ask NVML only.
    names = {device.gpu.name for device in devices} - {_NAMELESS}
    devices = _completed(devices, run)
    return _report(host, devices, _cuda(nvml), same_model=len(names) <= 1)


def _report(host: Host, devices: Sequence[_Device], cuda: str | None, *, same_model: bool) -> GpuReport:
    selection = select_nvidia(
        host.environ,
        host.gpus,
        [device.identity for device in devices],
        same_model=same_model,
        driver=next((device.gpu.driver for device in devices), None),
    )
    if selection.gaps and not selection.chosen:
        raise Unavailable(f"NVML: {', '.join(selection.gaps)}")
    watched: list[Gpu] = []
    problems = list(selection.gaps)
    for one in selection.chosen:
        device = devices[one.index]
        watched.append(device.gpu if one.slice is None else device.slices[one.slice])
        if one.slice is None and device.problem:
            problems.append(device.problem)
    return GpuReport(
        gpus=tuple(watched),
        cuda=cuda if selection.chosen else None,
        problems=tuple(problems),
        conclusive=bool(selection.chosen),  # if False, there may be GPUs of another vendor
    )


def _device(nvml: Any, index: int, driver: str | None) -> _Device:
    # A GPU that fails keeps its place: it has a number in the keys of the metrics, too.
    nameless = Gpu(name=_NAMELESS, driver=driver, index=index)
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return _Device(GpuId(index, ""), nameless, problem=f"GPU {index}: {_reason(error)}")
    problem = ""
    uuid = _ask(nvml, "nvmlDeviceGetUUID", handle) or ""
    name = None
    try:
        name = readable(_text(nvml.nvmlDeviceGetName(handle)))
        problem = "" if name else f"GPU {index}: {_UNREADABLE}"
    except (nvml.NVMLError, UnicodeDecodeError) as error:
        problem = f"GPU {index}: {_reason(error)}"
    gpu = _gpu(nvml, handle, replace(nameless, name=name or _NAMELESS, uuid=uuid or None))
    mode = _ask(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or mode[0] != _MIG_ENABLED:
        return _Device(GpuId(index, uuid), gpu, problem=problem)
    slices = dict(_slices(nvml, handle, Gpu(name=name or _NAMELESS, driver=driver, index=index)))
    return _Device(GpuId(index, uuid, tuple(slices), mig=True), gpu, slices, problem)


def _completed(devices: Sequence[_Device], run: RunCommand) -> list[_Device]:
    """Returns the devices with what nvidia-smi knows of those that NVML does not describe in full."""
    if all(_is_complete(device.gpu) for device in devices):
        return list(devices)
    try:
        listed = nvidia_smi.all_gpus(run)
    except Unavailable:
        return list(devices)
    by_uuid = {gpu.uuid: gpu for gpu in listed if gpu.uuid}
    by_place = dict(enumerate(listed)) if len(listed) == len(devices) else {}
    return [
        _filled(device, by_uuid.get(device.gpu.uuid or "") or by_place.get(device.identity.index))
        for device in devices
    ]


def _is_complete(gpu: Gpu) -> bool:
    named = gpu.name != _NAMELESS and bool(gpu.uuid and gpu.driver)
    return named and (gpu.unified or gpu.memory_bytes is not None)


def _filled(device: _Device, other: Gpu | None) -> _Device:
    gpu = device.gpu
    if other is None or _is_complete(gpu) or (gpu.uuid and other.uuid and gpu.uuid != other.uuid):
        return device
    named = gpu.name == _NAMELESS != other.name
    return replace(
        device,
        identity=replace(device.identity, uuid=device.identity.uuid or other.uuid or ""),
        gpu=replace(
            gpu,
            name=other.name if named else gpu.name,
            uuid=gpu.uuid or other.uuid,
            driver=gpu.driver or other.driver,
            memory_bytes=gpu.memory_bytes if gpu.memory_bytes is not None else other.memory_bytes,
            unified=gpu.unified or other.unified,
        ),
        problem="" if named else device.problem,
    )


def _slices(nvml: Any, handle: Any, parent: Gpu) -> Iterator[tuple[SliceId, Gpu]]:
    for place in range(_ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        piece = _ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
        if piece is None:  # places without a slice are "not found"
            continue
        uuid = _ask(nvml, "nvmlDeviceGetUUID", piece)
        if not uuid:  # a slice without a UUID cannot be identified, and no collector shows it
            continue
        name = _ask(nvml, "nvmlDeviceGetName", piece) or f"{parent.name} MIG"
        ids = (_ask(nvml, f"nvmlDeviceGet{kind}InstanceId", piece) for kind in ("Gpu", "Compute"))
        identity = SliceId(uuid, *(-1 if number is None else number for number in ids))
        yield identity, _gpu(nvml, piece, Gpu(name=name, uuid=uuid, driver=parent.driver, index=parent.index))


def _gpu(nvml: Any, handle: Any, named: Gpu) -> Gpu:
    """Adds the memory of a device; GB10, Thor and Orin, which use the host's, answer "not supported" or 0."""
    version = getattr(nvml, "nvmlMemory_v2", None)
    for arguments in ((), *(() if version is None else ((version,),))):
        try:
            total = int(nvml.nvmlDeviceGetMemoryInfo(handle, *arguments).total)
        except nvml.NVMLError_NotSupported:
            return replace(named, unified=True)
        except (nvml.NVMLError, TypeError, ValueError):
            continue
        if 0 <= total <= MOST_GPU_BYTES:
            return replace(named, memory_bytes=total) if total else replace(named, unified=True)
    return named


def _cuda(nvml: Any) -> str | None:
    """Returns "12.4" for NVML's 12040."""
    functions = ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
    version = next(filter(None, (_ask(nvml, function) for function in functions)), None)
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def _reason(error: Exception) -> str:
    """Returns the error and, if known, what to do about it."""
    return _REASONS.get(type(error).__name__, str(error))


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """Returns the answer of an NVML function, or None if this driver or these bindings do not have it."""
    try:
        answer = getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError, UnicodeDecodeError):
        return None
    return readable(_text(answer)) if isinstance(answer, (bytes, str)) else answer


def _text(answer: str | bytes) -> str:
    """Returns text; bindings before 11.5 return bytes."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
