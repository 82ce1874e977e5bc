"""The AMD GPUs that HIP shows to the job, and their ordinals, without starting ROCm.

Source:  ROCR-Runtime (core/runtime/amd_filter_device.cpp) for ROCR_VISIBLE_DEVICES, ROCclr
         (rocclr/device/rocm/rocdevice.cpp) for HIP_VISIBLE_DEVICES; ROCm, "GPU isolation techniques".
ROCR:    a list of indices and UUIDs ("GPU-" and 16 hex digits, or a prefix of that), in any letter case, with
         or without blanks. It ends at the first entry that is invalid, ambiguous or repeated. Empty means
         none.
HIP:     counts within what ROCR left, ends at the first invalid entry, skips repeated entries, and allows no
         blanks. If it is not set, CUDA_VISIBLE_DEVICES is read instead. HIP itself ignores an empty value,
         but PyTorch then reports no device, so an empty value means none here too.
Ignored: GPU_DEVICE_ORDINAL, which ROCclr reads for OpenCL only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.machine.visible_gpus.environment import ROCR, hip_list
from mlflow_sysmetrics.machine.visible_gpus.selection import (
    Chosen,
    GpuId,
    Selection,
    follows_environment,
    select_listed,
)


def select_amd(environ: Mapping[str, str], wanted: str, uuids: Sequence[str]) -> Selection:
    """Returns the AMD GPUs to watch; the GPUs that HIP shows keep HIP's ordinals, starting at 0.

    Args:
        environ: environment variables of the job.
        wanted: "visible", "process", "all" or a list, as `Settings.gpus`.
        uuids: "GPU-" and `unique_id` of all GPUs in ROCm's order (that of the nodes in
            /sys/class/kfd/kfd/topology, which is the PCI bus's on most hosts); "" for a GPU without one.
    """
    if not follows_environment(wanted):
        return select_listed(wanted, [GpuId(index, uuid) for index, uuid in enumerate(uuids)], "AMD")
    visible = list(range(len(uuids)))
    if ROCR in environ:
        visible = _rocr(environ[ROCR], uuids)
    listed = hip_list(environ)
    if listed is not None:
        visible = _hip(listed, visible, uuids)
    return Selection(tuple(Chosen(ordinal, index) for ordinal, index in enumerate(visible)))


def _rocr(text: str, uuids: Sequence[str]) -> list[int]:
    known = [uuid.upper() for uuid in uuids]
    found: list[int] = []
    for entry in text.upper().split(","):
        indices = _matching(entry.strip(), known)
        if len(indices) != 1 or indices[0] in found:
            break
        found += indices
    return found


def _hip(text: str, visible: Sequence[int], uuids: Sequence[str]) -> list[int]:
    found: list[int] = []
    for entry in text.split(","):
        indices = _matching(entry, [uuids[index] for index in visible])
        if not indices:
            break
        found.append(visible[indices[0]])
    return list(dict.fromkeys(found))


def _matching(entry: str, uuids: Sequence[str]) -> list[int]:
    if entry.isascii() and entry.isdigit():
        return [index for index in range(len(uuids)) if str(index) == entry]
    if not entry.startswith("GPU-"):
        return []
    return [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
