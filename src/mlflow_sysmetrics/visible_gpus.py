"""Which NVIDIA GPUs the job may use, from the environment, without starting CUDA.

CUDA_VISIBLE_DEVICES, by the CUDA C++ Programming Guide ("CUDA Environment Variables"): unset shows every
GPU; otherwise a comma-separated list of indices and UUIDs, where a UUID may be cut to a prefix that names
one GPU. CUDA takes the devices in that order and stops at the first entry that is invalid, so "0,2,-1,1"
shows 0 and 2, and "-1" or "" shows none. A device named twice makes the whole list invalid.

NVIDIA_VISIBLE_DEVICES is an order to the container toolkit, not to CUDA: "none" asks for a container without
GPUs; an index, "all" or a directory was carried out before this process began, so the devices that NVML lists
are the ones that were asked for. "void" tells nothing: the toolkit writes it into every container that gets
its GPUs through CDI (NVIDIA/gpu-operator#1994).

Indices are taken in NVML's order, which is CUDA's under CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA's default order,
FASTEST_FIRST, is the same unless GPUs of different speed are mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_CUDA = "CUDA_VISIBLE_DEVICES"
_NVIDIA = "NVIDIA_VISIBLE_DEVICES"
_UUID_PREFIXES = ("GPU-", "MIG-")


def visible_gpus(
    environ: Mapping[str, str], uuids: Sequence[str], *, mig_parents: Mapping[str, int] | None = None
) -> list[int]:
    """Returns indices into `uuids` of the GPUs that the job may use, in the order in which it sees them.

    An entry that names a MIG device stands for the GPU that it is a slice of, where that can be known: from
    the old form ``MIG-GPU-<uuid>/<gi>/<ci>``, or from `mig_parents`. Otherwise it ends the list, as an
    invalid one does.

    Args:
        environ: environment variables of the job.
        uuids: UUIDs of all GPUs in NVML's order; "" for one that does not tell.
        mig_parents: UUID of a MIG device -> index of its GPU, as far as the caller knows them.
    """
    if hides_all_gpus(environ):
        return []
    entries = _entries(environ)
    if entries is None:
        return list(range(len(uuids)))
    visible: list[int] = []
    for entry in entries:
        index = _index(entry, uuids, mig_parents or {})
        if index is None:
            break
        if index not in visible:
            visible.append(index)
        elif not entry.startswith("MIG-"):  # two slices of one GPU are two devices
            return []
    return visible


def hides_all_gpus(environ: Mapping[str, str]) -> bool:
    """Whether the environment alone says that the job has no GPU, whatever the machine has."""
    entries = _entries(environ)
    if entries is not None and entries[0] in ("", "-1"):
        return True
    return environ.get(_NVIDIA, "").strip().lower() == "none"


def mig_entries(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the entries of CUDA_VISIBLE_DEVICES that name MIG devices."""
    return tuple(entry for entry in _entries(environ) or () if entry.startswith("MIG-"))


def _entries(environ: Mapping[str, str]) -> list[str] | None:
    listed = environ.get(_CUDA)
    return None if listed is None else [entry.strip() for entry in listed.split(",")]


def _index(entry: str, uuids: Sequence[str], mig_parents: Mapping[str, int]) -> int | None:
    if entry.isascii() and entry.isdigit():
        return int(entry) if int(entry) < len(uuids) else None
    if not entry.startswith(_UUID_PREFIXES):
        return None
    candidates = {index for index, uuid in enumerate(uuids) if uuid.startswith(entry)}
    candidates |= {parent for uuid, parent in mig_parents.items() if uuid.startswith(entry)}
    if entry.startswith("MIG-GPU-"):
        parent_uuid = entry.removeprefix("MIG-").partition("/")[0]
        candidates |= {index for index, uuid in enumerate(uuids) if uuid == parent_uuid}
    return candidates.pop() if len(candidates) == 1 else None
