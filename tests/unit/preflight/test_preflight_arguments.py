"""An invalid argument raises a SettingsError that names it, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics import preflight, tracked_run
from mlflow_sysmetrics.errors import SettingsError

WRONG: list[dict[str, Any]] = [
    {"experiment_name": 5},
    {"run_name": Path("first")},
    {"run_id": 7},
    {"tags": ["a"]},
    {"params": "x"},
    {"tracking_uri": 5},
    {"backoff": 5},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_preflight_rejects_an_invalid_argument(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(SettingsError) as raised:
        preflight(**{"tracking_uri": "http://127.0.0.1:1", **wrong}, status_path=tmp_path / "status")
    assert str(raised.value).startswith(f"{name} must be ")
    assert str(raised.value).endswith(f"got {value!r}")
    assert not (tmp_path / "status").exists()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_tracked_run_rejects_an_invalid_argument(wrong: dict[str, Any], tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=next(iter(wrong))),
        tracked_run(**{"tracking_uri": "http://127.0.0.1:1", **wrong}, status_path=tmp_path / "status"),
    ):
        pass
    assert not (tmp_path / "status").exists()
