"""Stores that are files are looked for before MLflow makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.journal.store_files import check_store, store_path
from mlflow_sysmetrics.errors import ServerUnreachable


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite+pysqlite:///{}", "file://{}", "{}"])
def test_a_store_that_does_not_exist_is_named(form: str, tmp_path: Path) -> None:
    path = tmp_path / "gone.db"
    with pytest.raises(ServerUnreachable, match=r"gone\.db does not exist"):
        check_store(form.format(path))


@pytest.mark.parametrize("form", ["sqlite:///{}", "file://{}", "{}"])
def test_a_store_that_exists_will_do(form: str, tmp_path: Path) -> None:
    check_store(form.format(tmp_path))


@pytest.mark.parametrize(
    "uri", ["http://tracking:5000", "postgresql://db/runs", "databricks", "sqlite:///:memory:"]
)
def test_what_is_no_file_is_not_looked_for(uri: str) -> None:
    assert store_path(uri) is None
