"""What unit tests share: settings warn anew in each test."""

from __future__ import annotations

import hypothesis
import pytest

from mlflow_sysmetrics import settings
from mlflow_sysmetrics.collectors import watched_paths
from mlflow_sysmetrics.collectors.processes import uss

# The same examples each time, on a machine that may be busy with something else.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


# A busy machine has time to answer; a test of a thread that hangs sets its own times.
watched_paths._FIRST_ANSWER_SECONDS = 60.0
watched_paths._NEXT_ANSWER_SECONDS = 60.0
uss._ANSWER_SECONDS = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Makes `warn_once` forget what it warned of in another test; a fixture would take longer than most tests."""
    settings._warned.clear()
