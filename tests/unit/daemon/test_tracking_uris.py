"""Tracking URIs as they stand in a journal, which another process in another directory reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.daemon.tracking_uris import lasting, with_secrets


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("http://user:secret@server:5000/prefix?token=x", "http://server:5000/prefix"),
        ("https://server", "https://server"),
        ("sqlite:////srv/runs.db", "sqlite:////srv/runs.db"),
        ("postgresql://user:secret@server/db?password=x", "postgresql://server/db"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("/srv/mlruns", "/srv/mlruns"),
    ],
)
def test_a_uri_is_written_without_secrets(uri: str, written: str) -> None:
    assert lasting(uri) == written


def test_what_depends_on_the_working_directory_is_written_absolute(tmp_path: Path) -> None:
    assert lasting("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert lasting("sqlite+pysqlite:///sub/runs.db?timeout=5") == f"sqlite+pysqlite:///{tmp_path}/sub/runs.db"
    assert lasting("./mlruns") == f"{tmp_path}/mlruns"
    assert lasting("file:./mlruns") == f"file://{tmp_path}/mlruns"


def test_a_working_directory_that_was_deleted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert lasting("sqlite:///runs.db").endswith("runs.db")


def test_a_journalled_server_gets_back_the_credentials_that_this_program_knows() -> None:
    known = ["http://other", "http://me:secret@server:5000"]
    assert with_secrets("http://server:5000", known) == "http://me:secret@server:5000"
    assert with_secrets("http://elsewhere", known) == "http://elsewhere"
