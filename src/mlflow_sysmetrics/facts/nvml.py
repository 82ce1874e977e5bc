"""NVIDIA GPUs through NVML, the library that the driver brings.

Source:  nvmlDeviceGetName, ...GetUUID, ...GetMemoryInfo, nvmlSystemGetDriverVersion and
         nvmlSystemGetCudaDriverVersion_v2, through nvidia-ml-py.
Absent:  no NVML library: there is no NVIDIA driver here.
MIG:     a sliced GPU is shown as its slices, whose names carry the profile ("... MIG 3g.40gb").
Never:   nvmlShutdown. NVML counts its users per process, and another one may still need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_sysmetrics.command import RunCommand
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.facts.values import Gpu, GpuReport
from mlflow_sysmetrics.host import Host
from mlflow_sysmetrics.visible_gpus import mig_entries, visible_gpus

_MIG_ENABLED = 1


@dataclass(frozen=True, slots=True)
class _Device:
    """One physical GPU, or the reason why it does not answer."""

    gpu: Gpu | None
    slices: tuple[Gpu, ...] = ()
    problem: str = ""

    @property
    def uuid(self) -> str:
        return (self.gpu and self.gpu.uuid) or ""


def gpus(host: Host, run: RunCommand) -> GpuReport:  # noqa: ARG001 - the contract of a GPU source
    """Returns the visible GPUs that NVML lists.

    Raises:
        Unavailable: NVML is installed but does not work.
    """
    try:
        nvml = host.load_nvml()
    except ImportError:
        return GpuReport()
    try:
        nvml.nvmlInit()
        devices = [_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError_LibraryNotFound:
        return GpuReport()
    except nvml.NVMLError as error:
        raise Unavailable(f"NVML: {error}") from error
    return _report(host, devices, _cuda(nvml))


def _report(host: Host, devices: list[_Device], cuda: str | None) -> GpuReport:
    uuids = [device.uuid for device in devices]
    parents = {piece.uuid or "": index for index, device in enumerate(devices) for piece in device.slices}
    indices = visible_gpus(host.environ, uuids, mig_parents=parents)
    named = mig_entries(host.environ)
    if devices and not indices and named:
        raise Unavailable("NVML does not list the MIG device that CUDA_VISIBLE_DEVICES names")
    visible = [devices[index] for index in indices]
    return GpuReport(
        gpus=tuple(gpu for device in visible for gpu in _shown(device, named)),
        cuda=cuda if visible else None,
        problems=tuple(device.problem for device in visible if device.problem),
        conclusive=bool(devices),
    )


def _shown(device: _Device, named: tuple[str, ...]) -> Iterator[Gpu]:
    """Yields the slices of a MIG GPU, only those that are named if any is, or else the GPU itself."""
    if device.slices:
        yield from (piece for piece in device.slices if not named or (piece.uuid or "").startswith(named))
    elif device.gpu is not None:
        yield device.gpu


def _device(nvml: Any, index: int) -> _Device:  # noqa: ANN401 - nvidia-ml-py ships no types
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        gpu = _gpu(nvml, handle)
    except nvml.NVMLError as error:
        return _Device(None, problem=f"GPU {index}: {error}")
    return _Device(gpu, slices=tuple(_gpu(nvml, piece) for piece in _mig_handles(nvml, handle)))


def _gpu(nvml: Any, handle: Any) -> Gpu:  # noqa: ANN401 - nvidia-ml-py ships no types
    name = _text(nvml.nvmlDeviceGetName(handle))
    memory_bytes, unified = _memory(nvml, handle)
    return Gpu(
        name=name,
        memory_bytes=memory_bytes,
        unified=unified,
        uuid=_ask(nvml, "nvmlDeviceGetUUID", handle),
        driver=_ask(nvml, "nvmlSystemGetDriverVersion"),
    )


def _memory(nvml: Any, handle: Any) -> tuple[int | None, bool]:  # noqa: ANN401 - nvidia-ml-py ships no types
    """Returns bytes and whether they are the host's own: GB10, Thor and Orin say "not supported", or 0."""
    try:
        total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError_NotSupported:
        return None, True
    except nvml.NVMLError:
        return None, False
    return (total, False) if total else (None, True)


def _mig_handles(nvml: Any, handle: Any) -> Iterator[Any]:  # noqa: ANN401 - nvidia-ml-py ships no types
    mode = _ask(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or mode[0] != _MIG_ENABLED:
        return
    for index in range(_ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        piece = _ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if piece is not None:  # places without a slice are "not found"
            yield piece


def _cuda(nvml: Any) -> str | None:  # noqa: ANN401 - nvidia-ml-py ships no types
    """Returns "12.4" of NVML's 12040."""
    version = _ask(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - nvidia-ml-py ships no types
    """Returns what an NVML function does, or None where this driver or these bindings do not have it."""
    try:
        answer = getattr(nvml, function)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None
    return _text(answer) if isinstance(answer, bytes) else answer


def _text(answer: str | bytes) -> str:
    """Returns text; bindings before 11.5 return bytes."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
