"""Points that are there already, at a server that cannot tell which of them are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.resending import send_what_is_missing
from mlflow_sysmetrics.errors import ServerUnreachable
from mlflow_sysmetrics.mlflow_api.classification import AlreadyThere, fault

SQLITE = (
    "(sqlite3.IntegrityError) UNIQUE constraint failed: metrics.key, metrics.timestamp\n"
    "[SQL: INSERT INTO metrics (key, value) VALUES (?, ?)] [parameters: ('maximum', 1)]"
)
POSTGRESQL = (
    '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "metric_pk"\n'
    "DETAIL:  Key (key) already exists.\n[SQL: INSERT INTO metrics (key) VALUES (%(key)s)]"
)
MYSQL = "(1062, \"Duplicate entry 'x' for key 'PRIMARY'\")\n[SQL: INSERT INTO metrics (`key`) VALUES (%s)]"


@pytest.mark.parametrize("text", [SQLITE, POSTGRESQL, MYSQL])
def test_a_database_that_has_a_point_already_is_understood(text: str) -> None:
    assert type(fault(400, "BAD_REQUEST", text, "why")) is AlreadyThere


def test_two_nodes_that_write_a_new_key_at_once_try_again() -> None:
    text = SQLITE.replace("INTO metrics", "INTO latest_metrics").replace("maximum", "loss")
    assert type(fault(400, "BAD_REQUEST", text, "why")) is ServerUnreachable


class OldServer:
    """Finds what it has among the points of a batch as MLflow 2 does."""

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
                raise AlreadyThere("UNIQUE constraint failed")
        self.points += new
        self._keys |= {(repr(value), step) for value, step in new}
        self.tags.update(tags)


def test_what_is_no_number_arrives_once_however_often_it_is_sent() -> None:
    server = OldServer()
    values = [0.5, math.nan, math.inf, 0.25, -math.inf, math.nan]
    points = [Point("loss", value, 1000, None) for value in values]
    send_what_is_missing(server.send, points[:3], range(3), {})
    send_what_is_missing(server.send, points, range(6), {"a": "b"})
    assert sorted(step for _, step in server.points) == list(range(6))
    assert server.tags == {"a": "b"}


def test_what_is_refused_though_all_of_it_is_finite_is_sent_again_later() -> None:
    def refuse(*_: object) -> None:
        raise AlreadyThere("UNIQUE constraint failed")

    with pytest.raises(ServerUnreachable):
        send_what_is_missing(refuse, [Point("loss", 1.0, 1000)], [1], {})
