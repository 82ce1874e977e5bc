"""Sends points again that the server may have already, and works around servers that cannot handle it.

A database takes a point once. If a batch holds a point that is stored already, the database refuses it;
MLflow then looks up which points are new and inserts those. Up to 3.1 at least, that lookup never finds NaN
or infinite points: NaN is not equal to itself, and infinity is stored as the largest float. Such a batch
would be refused for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

Send: TypeAlias = Callable[[Sequence[Point], Sequence[int], Mapping[str, str]], None]


def send_what_is_missing(
    send: Send, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]
) -> None:
    """Delivers points, some of which the server may have already.

    Raises:
        Fault: the server did not accept them.
    """
    try:
        send(points, steps, tags)
    except Fault as fault:
        placed = list(zip(points, steps, strict=True))
        finite = [one for one in placed if math.isfinite(one[0].value)]
        if fault.cause is not Cause.POINT_EXISTS or len(finite) == len(placed):
            raise
    else:
        return
    if finite or tags:
        send([point for point, _ in finite], [step for _, step in finite], tags)
    for point, step in placed:
        if not math.isfinite(point.value):
            with _stored_is_delivered():
                send([point], [step], {})


@contextmanager
def _stored_is_delivered() -> Iterator[None]:
    """Ignores the error about a stored point: in a batch of one, it can only mean that point."""
    try:
        yield
    except Fault as fault:
        if fault.cause is not Cause.POINT_EXISTS:
            raise
