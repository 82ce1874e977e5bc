"""A run whose process died gets the summary and the verdict that it would have had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from made_runs import BEGAN, FakeServer, busy, histories, starved
from mlflow_sysmetrics.report.completion import complete
from mlflow_sysmetrics.summary.description import NOTE_TAG
from mlflow_sysmetrics.summary.summary import PREFIX, VERDICT_TAG


class WritableServer(FakeServer):
    """Takes a batch, too."""

    def log_batch(self, run_id: str, metrics: Any, tags: Any) -> None:
        del run_id
        self.batch = SimpleNamespace(
            metrics={one.key: one.value for one in metrics},
            times={(one.timestamp, one.step) for one in metrics},
            tags={one.key: one.value for one in tags},
        )


def completed(*, describe: bool = True, node: str = "", **more: Any) -> Any:
    server = WritableServer()
    server.add("run", "killed", histories(starved, 20, node), status="RUNNING", **more)
    assert complete(server, "run", describe=describe)
    return server.batch


def test_figures_and_verdict_are_those_of_its_points() -> None:
    batch = completed()
    assert batch.tags[VERDICT_TAG].startswith("gpu-starved: ")
    assert "**gpu-starved**" in batch.tags[NOTE_TAG]
    assert batch.metrics[f"{PREFIX}gpu_hours"] == pytest.approx(1 / 3, abs=0.001)
    assert batch.times == {(BEGAN + 1_200_000, 1200)}


def test_each_node_has_its_own_figures() -> None:
    batch = completed(node="node_0")
    assert all(key.startswith(f"{PREFIX}node_0/") for key in batch.metrics)


def test_what_the_user_wrote_is_kept() -> None:
    assert NOTE_TAG not in completed(**{NOTE_TAG: "mine"}).tags
    assert NOTE_TAG not in completed(describe=False).tags


def test_the_share_of_a_run_among_others_is_kept() -> None:
    batch = completed(summary={f"{PREFIX}gpu_hours": 0.0625, f"{PREFIX}measured_hours": 0.25})
    assert batch.metrics[f"{PREFIX}gpu_hours"] == pytest.approx(1 / 12, abs=0.001)
    assert batch.metrics[f"{PREFIX}measured_hours"] == pytest.approx(1 / 3, abs=0.001)


def test_a_run_without_system_metrics_is_left_alone() -> None:
    server = WritableServer()
    server.add("run", "killed", {})
    assert not complete(server, "run", describe=True)
    assert not complete(server, "no such run", describe=True)


def test_a_short_run_has_figures_and_no_verdict() -> None:
    server = WritableServer()
    server.add("run", "killed", histories(busy, 2))
    assert complete(server, "run", describe=True)
    assert server.batch.tags == {}
