"""The Intel GPUs that Level Zero shows to the job, and their ordinals, without starting it.

Source:  compute-runtime (shared/source/execution_environment/execution_environment.cpp) for ZE_AFFINITY_MASK
         and the order; oneAPI DPC++, "Environment Variables", for ONEAPI_DEVICE_SELECTOR.
Order:   that of the PCI bus, with the processor's own GPU last unless ZE_ENABLE_PCI_ID_DEVICE_ORDER=1. The
         other two variables filter and do not change the order.
Mask:    ZE_AFFINITY_MASK=0,1 counts in that order; "0.1", a tile of a card, selects its card; an entry
         out of range is skipped. A card of two tiles may count as two devices (ZE_FLAT_DEVICE_HIERARCHY);
         here it is one.
Selector: ONEAPI_DEVICE_SELECTOR counts within what the mask left. Only a single term for Level Zero is
         supported ("level_zero:0,1", "level_zero:gpu", "*:gpu"); with any other value all GPUs are shown,
         and `Selection.doubt` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlflow_sysmetrics.machine.visible_gpus.environment import (
    ONEAPI_SELECTOR,
    hides_intel_gpus,
    intel_variables,
)
from mlflow_sysmetrics.machine.visible_gpus.selection import (
    Chosen,
    GpuId,
    Selection,
    follows_environment,
    select_listed,
)

_PCI_ORDER = "ZE_ENABLE_PCI_ID_DEVICE_ORDER"

_PROCESSORS_OWN = "0000:00:02.0"  # the PCI address of the GPU in every Intel processor
_SIMPLE_TERM = re.compile(r"(?:level_zero|\*):(\*|gpu|\d+(?:\.\d+)*(?:,\d+(?:\.\d+)*)*)", re.ASCII)
_EVERY_GPU = ("*", "gpu")


def select_intel(environ: Mapping[str, str], wanted: str, addresses: Sequence[str]) -> Selection:
    """Returns the Intel GPUs to watch; the GPUs that Level Zero shows keep its ordinals, starting at 0.

    If neither of its variables is set, an empty CUDA_VISIBLE_DEVICES hides Intel's GPUs too.

    Args:
        environ: environment variables of the job.
        wanted: "visible", "process", "all" or a list, as `Settings.gpus`; "UUIDs" are PCI addresses here.
        addresses: PCI addresses ("0000:03:00.0") of all GPUs, in ascending order.
    """
    if not follows_environment(wanted):
        return select_listed(wanted, [GpuId(index, name) for index, name in enumerate(addresses)], "Intel")
    if hides_intel_gpus(environ):
        return Selection()
    mask, selector = intel_variables(environ)
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
        doubt = f"{ONEAPI_SELECTOR}={selector} is not supported here, so all Intel GPUs are shown"
    return Selection(tuple(Chosen(ordinal, index) for ordinal, index in enumerate(visible)), doubt)


def _filtered(text: str, visible: Sequence[int]) -> list[int]:
    places = {entry.partition(".")[0].strip() for entry in text.split(",")}
    return [index for place, index in enumerate(visible) if str(place) in places]
