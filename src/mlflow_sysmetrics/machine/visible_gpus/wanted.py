"""Which GPUs the user wants watched, where that is not what the program sees.

``MLFLOW_SYSMETRICS_GPUS=all`` and a list number the host's devices, not the program's: a GPU keeps its own
index (NVML's, which ``nvidia-smi`` prints), so ``1,3`` gives ``gpu_1_...`` and ``gpu_3_...``. Slices have no
index of their own; they are numbered after the last GPU, in the order of ``nvidia-smi -L``. A list holds
indices and beginnings of UUIDs, each of which must name one device: "0", "GPU-8932f937", "MIG-3e20". On a
host with GPUs of several vendors the indices are NVIDIA's, else AMD's.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, Selection
from mlflow_sysmetrics.settings import GPUS

_ALL = "all"
# "process" is those of the visible that the job uses now: the collector filters, the ordinals stay.
_FROM_THE_ENVIRONMENT = ("visible", "process")


def follows_environment(wanted: str) -> bool:
    """Tells whether the environment of the job decides, not a list of the user's."""
    return wanted.strip().lower() in _FROM_THE_ENVIRONMENT


def select_listed(wanted: str, devices: Sequence[GpuId], vendor: str) -> Selection:
    """Returns what "all" or a list of indices and UUIDs chooses among one vendor's devices.

    Args:
        wanted: "all" or the list, as `Settings.gpus`.
        devices: all of the vendor's devices.
        vendor: its name, for the clauses about what is missing.
    """
    everything = _everything(devices)
    if wanted.strip().lower() == _ALL:
        return Selection(tuple(everything))
    found: set[int] = set()
    missing: list[str] = []
    for word in filter(None, (word.strip() for word in wanted.split(","))):
        matching = [one.ordinal for one in everything if _names(word, one, devices)]
        if len(matching) == 1:
            found.update(matching)
        else:
            reason = "names more than one" if matching else "is none"
            missing.append(f"{GPUS}: {word} {reason} of this host's {vendor} GPUs")
    return Selection(tuple(one for one in everything if one.ordinal in found), missing=tuple(missing))


def without_indices(wanted: str) -> str:
    """Returns a list without its indices: they are those of the first vendor that has GPUs here."""
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
