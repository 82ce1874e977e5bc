"""Fixtures of the server tests, which load this module as a plugin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_database import PASSWORD, Database


@pytest.fixture(scope="module")
def running_database() -> Iterator[Database]:
    """PostgreSQL, for the tests of a module."""
    # Not below pytest's own directory: each pytest that starts closes that to other users, and where the tests
    # run as root, PostgreSQL runs as another one.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as directory:
        database = Database(Path(directory) / "data")
        yield database
        database.close()


@pytest.fixture
def database(running_database: Database) -> Database:
    """The same, emptied."""
    running_database.empty()
    return running_database


@pytest.fixture
def postgres_store(database: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty database; the driver reads its password from PGPASSWORD."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return f"postgresql://mlflow@{database.place}"
