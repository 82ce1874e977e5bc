"""Points that a real store refuses: all others of their run arrive."""

from __future__ import annotations

import pytest
from programs import Store

from mlflow_sysmetrics.daemon.delivery.points import Point
from mlflow_sysmetrics.daemon.delivery.run_queue import RunQueue
from mlflow_sysmetrics.daemon.delivery.sender import Sender
from mlflow_sysmetrics.daemon.delivery.sink import open_sink
from mlflow_sysmetrics.runtime.clock import SystemClock

REFUSED = {
    "a time before 1970": Point("system/x", 1.0, -5, 7),
    "a step beyond 64 bits": Point("system/x", 1.0, 2**40, 2**63),
    "a time beyond 64 bits": Point("system/x", 1.0, 2**63, 7),
    "a character that no name may have": Point("system/x#1", 1.0, 2**40, 7),
    "a name that is too long": Point("system/" + "x" * 300, 1.0, 2**40, 7),
    "a name that is none": Point("", 1.0, 2**40, 7),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_point_that_the_store_refuses_costs_no_other(store: Store, what: str) -> None:
    run_id = store.client.create_run("0").info.run_id
    sender = Sender(store.uri, open_sink, SystemClock())
    queue = RunQueue(run_id, 0, send_interval=0)
    points = [Point("system/x", float(n), n, n) for n in range(40)]
    sender.append(queue, [*points[:17], REFUSED[what], *points[17:]], {"sys.a": "1"})
    while not queue.empty:
        assert sender.send_next(), sender.counts().last_error
    assert [point.value for point in store.points(run_id, "system/x")] == [point.value for point in points]
    assert sender.counts().dropped == 1
    assert store.tags(run_id)["sys.a"] == "1"
    assert store.tags(run_id)["sysmetrics.points_dropped"] == "1"
