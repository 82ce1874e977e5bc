"""Which AMD GPUs HIP shows to the job, and under which ordinals, without starting ROCm.

Source:  ROCR-Runtime (core/runtime/amd_filter_device.cpp) for ROCR_VISIBLE_DEVICES, ROCclr
         (rocclr/device/rocm/rocdevice.cpp) for HIP_VISIBLE_DEVICES; ROCm, "GPU isolation techniques".
ROCR:    a list of indices and UUIDs ("GPU-" and 16 hex digits, or the beginning of one), in any letter case,
         blanks or not; it stops at the first entry that is invalid, ambiguous or named twice. Empty: none.
HIP:     counts within what ROCR left, stops at the first invalid entry, passes over what is named twice, and
         takes no blanks. CUDA_VISIBLE_DEVICES takes its place where it is not set. HIP itself ignores an
         empty value, but PyTorch then reports no device, which is what the author of it meant: none.
Ignored: GPU_DEVICE_ORDINAL, which ROCclr reads for OpenCL only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.machine.visible_gpus.cuda_list import VARIABLE
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, Selection
from mlflow_sysmetrics.machine.visible_gpus.wanted import follows_environment, select_listed

ROCR = "ROCR_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"

_NAMES_ONE = re.compile(
    r"\d+\s*(?:,|$)|GPU-", re.ASCII
)  # the beginning of a list that some machine can fulfil


def select_amd(environ: Mapping[str, str], wanted: str, uuids: Sequence[str]) -> Selection:
    """Returns the AMD GPUs to watch; those that HIP shows have HIP's ordinals, the first of them 0.

    Args:
        environ: environment variables of the job.
        wanted: "visible", "process", "all" or a list, as `Settings.gpus`.
        uuids: "GPU-" and `unique_id` of all GPUs in ROCm's order (that of the nodes in
            /sys/class/kfd/kfd/topology, which is the PCI bus's on most hosts); "" for one that does not tell.
    """
    if not follows_environment(wanted):
        return select_listed(wanted, [GpuId(index, uuid) for index, uuid in enumerate(uuids)], "AMD")
    visible = list(range(len(uuids)))
    if ROCR in environ:
        visible = _rocr(environ[ROCR], uuids)
    listed = _hip_variable(environ)
    if listed is not None:
        visible = _hip(listed, visible, uuids)
    return Selection(tuple(Chosen(ordinal, index) for ordinal, index in enumerate(visible)))


def hides_amd_gpus(environ: Mapping[str, str]) -> bool:
    """Tells whether the environment alone says that the job has no AMD GPU, whatever the machine has."""
    listed = _hip_variable(environ)
    return (ROCR in environ and not _NAMES_ONE.match(environ[ROCR].strip().upper())) or (
        listed is not None and not _NAMES_ONE.match(listed)
    )


def _hip_variable(environ: Mapping[str, str]) -> str | None:
    return environ.get(HIP, environ.get(VARIABLE))


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
