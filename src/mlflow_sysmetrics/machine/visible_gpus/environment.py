"""What the job's environment says about GPUs before any GPU is looked for.

Source:  CUDA Programming Guide, "CUDA Environment Variables": only the entries before an invalid one are
         visible ("0,2,-1,1" shows 0 and 2), and an empty value shows nothing. Where the guide is silent this
         follows PyTorch (`torch.cuda._parse_visible_devices`), which must agree with CUDA on the number of
         devices: the first entry decides between indices and UUIDs, an index ends where its digits end (" 1"
         and "1gpu" are 1, as with strtoul), and a repeated entry empties the list. One exception: a list that
         mixes GPUs and slices is read to its end, where PyTorch stops at the change of kind, because CUDA
         shows both since driver 570 (MIG User Guide, "CUDA Device Enumeration").
Doubt:   an entry that another reader may understand differently ("1gpu", "+1", "0x1", an index among UUIDs,
         a UUID after a blank, a slice among GPUs) is reported with the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from mlflow_sysmetrics.machine.visible_gpus.selection import follows_environment

CUDA = "CUDA_VISIBLE_DEVICES"
CONTAINER_TOOLKIT = "NVIDIA_VISIBLE_DEVICES"
ROCR = "ROCR_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
LEVEL_ZERO_MASK = "ZE_AFFINITY_MASK"
ONEAPI_SELECTOR = "ONEAPI_DEVICE_SELECTOR"

_UUID_PREFIXES = ("GPU-", "MIG-")
# 18 digits always fit. A longer number is out of every range too, but int() refuses 4301 digits.
_LEADING_INDEX = re.compile(r"\s*([+-]?\d{1,18})", re.ASCII)
_PLAIN_INDEX = re.compile(r"\s*(\d+|-[1-9]\d*)\s*", re.ASCII)
# The start of a list of AMD GPUs that some machine can satisfy.
_STARTS_WITH_AMD_GPU = re.compile(r"\d+\s*(?:,|$)|GPU-", re.ASCII)


class CudaList(NamedTuple):
    """The devices that a value of CUDA_VISIBLE_DEVICES names, whether or not this host has them.

    Attributes:
        indices: in list order; empty if the list holds UUIDs.
        uuids: UUIDs and prefixes of UUIDs, in list order.
        doubt: the entry that may be read differently, as a clause.
    """

    indices: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    doubt: str | None = None


def read_cuda_list(text: str) -> CudaList:
    """Returns the devices that a value of CUDA_VISIBLE_DEVICES names."""
    return _uuids(text) if text.startswith(_UUID_PREFIXES) else _indices(text)


def hides_every_gpu(environ: Mapping[str, str], wanted: str) -> bool:
    """True if no GPU is watched, whatever the machine has.

    An empty CUDA_VISIBLE_DEVICES is the usual way to tell a job to use no GPU. It is taken to mean all
    vendors, unless another vendor's own variable says otherwise. NVIDIA_VISIBLE_DEVICES is taken to mean
    NVIDIA's GPUs only.

    Args:
        environ: environment variables of the job.
        wanted: the GPUs that the user wants watched, as `Settings.gpus`.
    """
    return (
        follows_environment(wanted)
        and hides_nvidia_gpus(environ)
        and hides_amd_gpus(environ)
        and hides_intel_gpus(environ)
    )


def hides_nvidia_gpus(environ: Mapping[str, str]) -> bool:
    """True if the environment alone says that the job has no NVIDIA GPU, whatever the machine has."""
    return _names_no_device(environ) or environ.get(CONTAINER_TOOLKIT, "").strip().lower() == "none"


def hides_amd_gpus(environ: Mapping[str, str]) -> bool:
    """True if the environment alone says that the job has no AMD GPU, whatever the machine has."""
    listed = hip_list(environ)
    return (ROCR in environ and not _STARTS_WITH_AMD_GPU.match(environ[ROCR].strip().upper())) or (
        listed is not None and not _STARTS_WITH_AMD_GPU.match(listed)
    )


def hides_intel_gpus(environ: Mapping[str, str]) -> bool:
    """True if the environment alone says that the job has no Intel GPU, whatever the machine has."""
    return not any(intel_variables(environ)) and _names_no_device(environ)


def hip_list(environ: Mapping[str, str]) -> str | None:
    """Returns the list that HIP reads: HIP_VISIBLE_DEVICES, or CUDA_VISIBLE_DEVICES if that is not set."""
    return environ.get(HIP, environ.get(CUDA))


def intel_variables(environ: Mapping[str, str]) -> tuple[str, str]:
    """Returns ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR in lower case; "" for one that is not set."""
    mask, selector = (
        environ.get(variable, "").strip().lower() for variable in (LEVEL_ZERO_MASK, ONEAPI_SELECTOR)
    )
    return mask, selector


def _names_no_device(environ: Mapping[str, str]) -> bool:
    """True if CUDA_VISIBLE_DEVICES is set and unambiguously names no device."""
    return CUDA in environ and read_cuda_list(environ[CUDA]) == CudaList()


def _uuids(text: str) -> CudaList:
    uuids: list[str] = []
    doubt = None
    for entry in text.split(","):
        if not entry.startswith(_UUID_PREFIXES):
            meant = entry.lstrip().startswith(_UUID_PREFIXES) or _LEADING_INDEX.match(entry)
            doubt = doubt or (_doubt(entry) if meant else None)
            break
        if entry in uuids:
            return CudaList(doubt=doubt)
        if entry[:4] != text[:4]:
            doubt = doubt or f"{CUDA} mixes GPUs and MIG devices, of which PyTorch counts only one kind"
        uuids.append(entry)
    return CudaList(uuids=tuple(uuids), doubt=doubt)


def _indices(text: str) -> CudaList:
    indices: list[int] = []
    doubt = None
    for entry in text.split(","):
        leading = _LEADING_INDEX.match(entry)
        odd_index = leading and not _PLAIN_INDEX.fullmatch(entry)
        if odd_index or entry.lstrip().startswith(_UUID_PREFIXES):
            doubt = doubt or _doubt(entry)
        index = int(leading[1]) if leading else -1
        if index < 0:
            break
        if index in indices:
            return CudaList(doubt=doubt)
        indices.append(index)
    return CudaList(indices=tuple(indices), doubt=doubt)


def _doubt(entry: str) -> str:
    return f"{CUDA} contains {entry!r}, which is ambiguous: list only indices, or only UUIDs"
