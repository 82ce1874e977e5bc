"""File stores are checked before MLflow would create them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.journal.store_files import check_store, store_path
from mlflow_sysmetrics.mlflow_api.faults import Fault


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite+pysqlite:///{}", "file://{}", "{}"])
def test_a_missing_store_is_reported(form: str, tmp_path: Path) -> None:
    path = tmp_path / "gone.db"
    with pytest.raises(Fault, match=r"gone\.db does not exist"):
        check_store(form.format(path))


@pytest.mark.parametrize("form", ["sqlite:///{}", "file://{}", "{}"])
def test_an_existing_store_is_accepted(form: str, tmp_path: Path) -> None:
    check_store(form.format(tmp_path))


@pytest.mark.parametrize(
    "uri", ["http://tracking:5000", "postgresql://db/runs", "databricks", "sqlite:///:memory:"]
)
def test_stores_that_are_not_files_are_not_checked(uri: str) -> None:
    assert store_path(uri) is None
