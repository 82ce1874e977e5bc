"""Intel's GPUs that are watched."""

from __future__ import annotations

from mlflow_sysmetrics.collectors.drm.cards import INTEL, Card, cards
from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.machine.visible_gpus import select_intel
from mlflow_sysmetrics.machine.visible_gpus.wanted import without_indices


def watched_intel_cards(host: Host) -> tuple[dict[int, Card], tuple[str, ...]]:
    """Returns the cards to watch by their ordinals, and what stays unknown about these.

    Raises:
        Unavailable: there is none.
    """
    found = cards(host, INTEL)
    if not found:
        raise Unavailable("no Intel GPU in /sys/class/drm")
    wanted = without_indices(host.gpus) if host.gpu_ordinals.first("intel", 0) else host.gpus
    selection = select_intel(host.environ, wanted, [card.slot for card in found])
    if not selection.chosen:
        raise Unavailable("; ".join(("no Intel GPU that this job may see", *selection.gaps)))
    first = host.gpu_ordinals.first("intel", selection.places)
    return {first + one.ordinal: found[one.index] for one in selection.chosen}, selection.gaps
