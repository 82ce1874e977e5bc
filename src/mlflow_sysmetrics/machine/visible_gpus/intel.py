"""Which Intel GPUs Level Zero shows to the job, and under which ordinals, without starting it.

Source:  compute-runtime (shared/source/execution_environment/execution_environment.cpp) for ZE_AFFINITY_MASK
         and the order; oneAPI DPC++, "Environment Variables", for ONEAPI_DEVICE_SELECTOR.
Order:   that of the PCI bus, with the processor's own GPU last unless ZE_ENABLE_PCI_ID_DEVICE_ORDER=1. The
         other two variables filter, and do not change it.
Mask:    ZE_AFFINITY_MASK=0,1 counts in that order; "0.1", a tile of a card, stands for its card, and what is
         out of range is passed over. A card of two tiles may count as two devices (ZE_FLAT_DEVICE_HIERARCHY);
         here it is one.
Selector: ONEAPI_DEVICE_SELECTOR counts in what the mask left. Only one term for Level Zero is understood
         ("level_zero:0,1", "level_zero:gpu", "*:gpu"); with another one all GPUs are shown, and
         `Selection.doubt` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.machine.visible_gpus.cuda_list import names_no_device
from mlflow_sysmetrics.machine.visible_gpus.selection import Chosen, GpuId, Selection
from mlflow_sysmetrics.machine.visible_gpus.wanted import follows_environment, select_listed

MASK = "ZE_AFFINITY_MASK"
SELECTOR = "ONEAPI_DEVICE_SELECTOR"
_PCI_ORDER = "ZE_ENABLE_PCI_ID_DEVICE_ORDER"

_PROCESSORS_OWN = "0000:00:02.0"  # where every Intel processor has its GPU
_SIMPLE_TERM = re.compile(r"(?:level_zero|\*):(\*|gpu|\d+(?:\.\d+)*(?:,\d+(?:\.\d+)*)*)", re.ASCII)
_EVERY_GPU = ("*", "gpu")


def select_intel(environ: Mapping[str, str], wanted: str, addresses: Sequence[str]) -> Selection:
    """Returns the Intel GPUs to watch; those that Level Zero shows have its ordinals, the first of them 0.

    Where neither of its variables is set, an empty CUDA_VISIBLE_DEVICES says for Intel too that the job uses
    no GPU.

    Args:
        environ: environment variables of the job.
        wanted: "visible", "process", "all" or a list, as `Settings.gpus`; "UUIDs" are PCI addresses here.
        addresses: PCI addresses ("0000:03:00.0") of all GPUs, in ascending order.
    """
    if not follows_environment(wanted):
        return select_listed(wanted, [GpuId(index, name) for index, name in enumerate(addresses)], "Intel")
    if hides_intel_gpus(environ):
        return Selection()
    mask, selector = _own_variables(environ)
    visible = list(range(len(addresses)))
    if environ.get(_PCI_ORDER) != "1":
        visible.sort(key=lambda index: addresses[index] == _PROCESSORS_OWN)
    if mask not in ("", "default"):
        visible = _filtered(mask, visible)
    doubt = None
    term = _SIMPLE_TERM.fullmatch(selector)
    if term and term[1] not in _EVERY_GPU:
        visible = _filtered(term[1], visible)
    elif selector and not term:
        doubt = f"{SELECTOR}={selector} is not understood, so all Intel GPUs are shown"
    return Selection(tuple(Chosen(ordinal, index) for ordinal, index in enumerate(visible)), doubt)


def hides_intel_gpus(environ: Mapping[str, str]) -> bool:
    """Tells whether the environment alone says that the job has no Intel GPU, whatever the machine has."""
    return not any(_own_variables(environ)) and names_no_device(environ)


def _own_variables(environ: Mapping[str, str]) -> tuple[str, str]:
    mask, selector = (environ.get(variable, "").strip().lower() for variable in (MASK, SELECTOR))
    return mask, selector


def _filtered(text: str, visible: Sequence[int]) -> list[int]:
    places = {entry.partition(".")[0].strip() for entry in text.split(",")}
    return [index for place, index in enumerate(visible) if str(place) in places]
