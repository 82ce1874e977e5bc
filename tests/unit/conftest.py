"""What unit tests share: settings warn anew in each test."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics import settings


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `warn_once` forget what it warned of in another test."""
    monkeypatch.setattr(settings, "_warned", set())
