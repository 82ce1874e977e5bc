"""Fixtures of the preflight's tests, which load this module as a plugin."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_double import Double, RunPreflight, running_double

from mlflow_sysmetrics.preflight import PreflightResult
from mlflow_sysmetrics.preflight.preflight_run import PreflightRun
from mlflow_sysmetrics.preflight.request import request_from
from mlflow_sysmetrics.preflight.retries import RetrySchedule

_SCHEDULE = frozenset({"max_retries", "timeout", "backoff", "deadline", "monotonic", "shortened"})


@pytest.fixture
def mlflow_as_it_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Resets the tracking URI and the experiment that a preflight sets in MLflow."""
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    before = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow's own imports and stores warn of is not ours
        import mlflow
        from mlflow.tracking import fluent

        monkeypatch.setattr(fluent, "_active_experiment_id", None)
        mlflow.set_tracking_uri("")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        yield
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri("")
    for name in [name for name in os.environ if name not in before]:
        del os.environ[name]


@pytest.fixture
def double(mlflow_as_it_starts: None) -> Iterator[Double]:
    """A tracking server whose responses a test controls."""
    with running_double() as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The directory of the status files of a test."""
    return tmp_path / "status"


@pytest.fixture
def run_preflight(mlflow_as_it_starts: None, files: Path) -> RunPreflight:
    """Runs a preflight whose pauses take no time."""

    def run_preflight(
        experiment_name: str | None = "ships", run_name: str | None = None, **named: Any
    ) -> PreflightResult:
        schedule = {key: named.pop(key) for key in _SCHEDULE & named.keys()}
        status_path = named.pop("status_path", files)
        request = request_from(experiment_name=experiment_name, run_name=run_name, **named)
        schedule = {"shortened": lambda _pause: 0.0, **schedule}
        return PreflightRun(request, RetrySchedule(**schedule), status_path).run()

    return run_preflight
