"""How many points a server takes in one request."""

from __future__ import annotations

import json

import pytest

from mlflow_sysmetrics.daemon.delivery.limits import BatchSize
from mlflow_sysmetrics.daemon.delivery.points import Point


def test_a_rejected_size_is_halved_down_to_one() -> None:
    size = BatchSize()
    found = []
    for _ in range(12):
        size.refused(size.most)
        found.append(size.most)
    assert found == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1]


def test_the_size_doubles_after_a_hundred_full_batches() -> None:
    size = BatchSize()
    size.refused(200)
    for _ in range(99):
        size.taken(100)
    assert size.most == 100
    size.taken(100)
    assert size.most == 200


def test_partial_batches_do_not_count() -> None:
    size = BatchSize()
    size.refused(200)
    for _ in range(1000):
        size.taken(99)
    assert size.most == 100


@pytest.mark.parametrize("key", ["k" * 5000, "ü" * 900, '"' * 2000])
def test_a_request_stays_below_a_megabyte(key: str) -> None:
    points = [Point(key, -1.7976931348623157e308, 1_700_000_000_000)] * 1000
    tags = {"t" * 250: "v" * 5000}
    count = BatchSize().fitting(points, tags)
    metrics = [
        {"key": one.key, "value": one.value, "timestamp": one.timestamp, "step": 10**9}
        for one in points[:count]
    ]
    pairs = [{"key": name, "value": value} for name, value in tags.items()]
    body = {"run_id": "0" * 32, "metrics": metrics, "tags": pairs}
    assert len(json.dumps(body)) <= 1_000_000
    assert 0 < count < 1000


def test_a_thousand_ordinary_points_fit() -> None:
    points = [Point("system/node_12/gpu_7_memory_usage_percentage", 12.345, 1_700_000_000_000)] * 1000
    assert BatchSize().fitting(points, {}) == 1000


def test_one_point_fits_whatever_its_size() -> None:
    assert BatchSize().fitting([Point("k" * 2_000_000, 1.0, 0)], {}) == 1
