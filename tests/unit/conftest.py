"""What unit tests share: settings warn anew in each test."""

from __future__ import annotations

import hypothesis
import pytest

from mlflow_sysmetrics import settings
from mlflow_sysmetrics.collectors import watched_paths

# The same examples each time, on a machine that may be busy with something else.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `warn_once` forget what it warned of in another test."""
    monkeypatch.setattr(settings, "_warned", set())


@pytest.fixture(autouse=True)
def _a_busy_machine_has_time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for threads that the collectors would go on without; one that hangs is a test's own business."""
    monkeypatch.setattr(watched_paths, "_FIRST_ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(watched_paths, "_NEXT_ANSWER_SECONDS", 60.0)
