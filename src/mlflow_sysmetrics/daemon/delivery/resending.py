"""Sending points again that are there already: what MLflow does about it, and where it does not.

A database takes a point once. A batch that holds one that is there already is refused, whereupon MLflow looks
which of them are new, and takes these. Up to 3.1 at least it never finds one that is NaN or infinite: NaN is
not equal to itself, and infinity is stored as the largest float. Such a batch is refused for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.mlflow_api.classification import AlreadyThere

Send: TypeAlias = Callable[[Sequence[Point], Sequence[int], Mapping[str, str]], None]


def send_what_is_missing(
    send: Send, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
) -> None:
    """Delivers points of which some may be there already.

    Raises:
        DeliveryError: the server did not take them.
    """
    try:
        send(points, steps, tags)
    except AlreadyThere:
        placed = list(zip(points, steps, strict=True))
        finite = [one for one in placed if math.isfinite(one[0].value)]
        if len(finite) == len(placed):
            raise
        if finite or tags:
            send([point for point, _ in finite], [step for _, step in finite], tags)
        for point, step in placed:
            if not math.isfinite(point.value):
                with suppress(AlreadyThere):  # alone, it is the one that is meant
                    send([point], [step], {})
