"""Runs in memory with the histories of simulated machines, and a server that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mlflow_sysmetrics.mlflow_api.faults import Cause, Fault

BEGAN = 1_790_000_000_000  # 2026-09-21 14:13 UTC
TAGS = {
    "mlflow.user": "ada",
    "sys.hostname": "gpu-node-7",
    "sys.cpu": "AMD EPYC 9654 96-Core Processor",
    "sys.cpu_cores": "192",
    "sys.cpu_cores_effective": "16",
    "sys.memory_gb": "1520",
    "sys.memory_limit_gb": "128",
    "sys.gpu": "NVIDIA H100 80GB HBM3",
    "sys.gpu_count": "1",
    "sys.os": "Ubuntu 24.04",
}
Tick = Callable[[int], Mapping[str, float]]


def busy(second: int) -> dict[str, float]:
    """A GPU at work."""
    return {
        "cpu_utilization_percentage": 40.0,
        "system_memory_usage_percentage": 30.0,
        "process_cpu_percentage": 640.0,
        "gpu_0_utilization_percentage": 92.0 + 4 * math.sin(second),
        "gpu_0_memory_usage_percentage": 60.0,
        "gpu_0_process_memory_megabytes": 50_000.0,
        "gpu_0_power_usage_watts": 600.0,
        "gpu_0_throttled_percentage": 0.0,
    }


def starved(second: int) -> dict[str, float]:
    """A GPU that waits every other minute."""
    return {**busy(second), "gpu_0_utilization_percentage": 90.0 if second % 120 < 60 else 0.0}


def on_cpu(_: int) -> dict[str, float]:
    """No GPU at all."""
    return {"cpu_utilization_percentage": 70.0, "system_memory_usage_percentage": 30.0}


def histories(
    tick: Tick, minutes: float = 60, node: str = "", every: int = 10
) -> dict[str, list[tuple[int, float]]]:
    """Returns the points of a run, by whole key."""
    where = f"system/{node}/" if node else "system/"
    found: dict[str, list[tuple[int, float]]] = {}
    for second in range(0, int(minutes * 60) + 1, every):
        for key, value in tick(second).items():
            found.setdefault(where + key, []).append((BEGAN + second * 1000, value))
    return found


@dataclass
class FakeServer:
    """Stands in for `TrackingServer`, and counts the requests."""

    runs: dict[str, Any] = field(default_factory=dict)
    points: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    uri: str = "sqlite:///runs.db"
    down: bool = False
    requests: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.uri

    @property
    def client(self) -> FakeServer:
        return self

    def add(
        self,
        run_id: str,
        name: str,
        points: Mapping[str, Sequence[tuple[int, float]]],
        *,
        summary: Mapping[str, float] | None = None,
        minutes: float = 60,
        status: str = "FINISHED",
        **tags: str,
    ) -> None:
        """Adds a run."""
        latest = {key: series[-1][1] for key, series in points.items()} | dict(summary or {})
        ended = None if status == "RUNNING" else BEGAN + int(minutes * 60_000)
        self.runs[run_id] = SimpleNamespace(
            info=SimpleNamespace(
                run_id=run_id,
                experiment_id="1",
                status=status,
                start_time=BEGAN,
                end_time=ended,
                user_id="",
            ),
            data=SimpleNamespace(
                tags={**TAGS, "mlflow.runName": name, **tags},
                metrics={"loss": 0.1, **latest},
                to_proto=lambda: SimpleNamespace(
                    metrics=[
                        SimpleNamespace(key=key, timestamp=series[-1][0], value=series[-1][1])
                        for key, series in points.items()
                    ]
                ),
            ),
        )
        self.points[run_id] = {key: list(series) for key, series in points.items()}

    def ask(self, method: Any, *arguments: object, **named: object) -> Any:
        if self.down:
            raise Fault("Connection refused", Cause.DOWN)
        self.requests.append(method.__name__)
        return method(*arguments, **named)

    def pages(self, search: Any, **wanted: object) -> Iterator[Any]:
        yield from self.ask(search, **wanted)

    def experiment_ids(self, names: Sequence[str]) -> list[str]:
        self.requests.append("experiment_ids")
        if names != ["ships"]:
            raise LookupError(f"{self.name} has no experiment {names[0]!r}; its experiments are 'ships'")
        return ["1"]

    def get_run(self, run_id: str) -> Any:
        if run_id not in self.runs:
            raise Fault(f"Run '{run_id}' not found", Cause.MISSING)
        return self.runs[run_id]

    def search_runs(self, **_: object) -> list[Any]:
        return list(self.runs.values())

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [SimpleNamespace(timestamp=at, value=value) for at, value in self.points[run_id][key]]


def fleet() -> FakeServer:
    """A server with a run that wastes its GPU, a good one, one without GPU and one without metrics."""
    server = FakeServer()
    server.add("1" * 32, "resnet", histories(busy))
    server.add("2" * 32, "segmentation", histories(starved, 120), minutes=120, **{"mlflow.user": "grace"})
    server.add("3" * 32, "trees", histories(on_cpu), **{"sys.gpu_count": "0", "sys.gpu": "None"})
    server.add("4" * 32, "no metrics", {})
    return server
