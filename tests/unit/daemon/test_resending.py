"""Points that a server has already, and cannot recognise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.resending import send_what_is_missing
from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault


def point_exists() -> Fault:
    return Fault("UNIQUE constraint failed", Cause.POINT_EXISTS, status_code=400, error_code="BAD_REQUEST")


class OldServer:
    """Recognises stored points in a batch as MLflow 2 does."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self.tags: dict[str, str] = {}
        self._keys: set[tuple[str, int]] = set()

    def send(self, points: Sequence[Point], steps: Sequence[int], tags: Mapping[str, str]) -> None:
        new = []
        for point, step in zip(points, steps, strict=True):
            if (repr(point.value), step) not in self._keys:
                new.append((point.value, step))
            elif not math.isfinite(point.value):
                raise point_exists()
        self.points += new
        self._keys |= {(repr(value), step) for value, step in new}
        self.tags.update(tags)


def test_a_point_that_is_not_finite_arrives_once_however_often_it_is_sent() -> None:
    server = OldServer()
    values = [0.5, math.nan, math.inf, 0.25, -math.inf, math.nan]
    points = [Point("loss", value, 1000, None) for value in values]
    send_what_is_missing(server.send, points[:3], range(3), {})
    send_what_is_missing(server.send, points, range(6), {"a": "b"})
    assert sorted(step for _, step in server.points) == list(range(6))
    assert server.tags == {"a": "b"}


def test_a_refused_batch_of_finite_points_is_sent_again_later() -> None:
    def refuse(*_: object) -> None:
        raise point_exists()

    with pytest.raises(Fault) as raised:
        send_what_is_missing(refuse, [Point("loss", 1.0, 1000)], [1], {})
    assert not raised.value.refuses_run


def test_any_other_fault_of_a_batch_is_passed_on() -> None:
    def refuse(*_: object) -> None:
        raise Fault("HTTP 503", Cause.DOWN)

    with pytest.raises(Fault, match="HTTP 503"):
        send_what_is_missing(refuse, [Point("loss", math.nan, 1000)], [1], {})


def test_any_other_fault_of_a_single_point_is_passed_on() -> None:
    faults = [point_exists(), Fault("HTTP 503", Cause.DOWN)]

    def refuse(*_: object) -> None:
        raise faults.pop(0)

    with pytest.raises(Fault, match="HTTP 503"):
        send_what_is_missing(refuse, [Point("loss", math.nan, 1000)], [1], {})
