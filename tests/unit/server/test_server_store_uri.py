"""The driver for a server's database, and the error if none is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.store_uri import server_store

REST = "://anna:s3cr3t@db/runs"
MODULES = ("psycopg2", "psycopg", "pymysql", "MySQLdb", "pyodbc", "pymssql")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides every installed driver."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, ModuleType(name))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "drivers", "found"),
    [
        ("postgresql", ["psycopg2"], "postgresql+psycopg2"),
        ("postgresql", ["psycopg"], "postgresql+psycopg"),
        ("postgresql", ["psycopg", "psycopg2"], "postgresql+psycopg2"),
        ("postgres", ["psycopg2"], "postgresql+psycopg2"),
        ("postgresql+psycopg", ["psycopg", "psycopg2"], "postgresql+psycopg"),
        ("mysql", ["MySQLdb"], "mysql+mysqldb"),
        ("mssql+pymssql", ["pymssql"], "mssql+pymssql"),
    ],
)
def test_the_uri_names_an_installed_driver(
    monkeypatch: pytest.MonkeyPatch, given: str, drivers: list[str], found: str
) -> None:
    for name in drivers:
        install(monkeypatch, name)
    assert server_store(given + REST) == found + REST


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("postgresql", '"psycopg2-binary>='),
        ("postgresql+psycopg2", '"psycopg2-binary>='),
        ("postgresql+psycopg", "pip install 'psycopg[binary]'"),
        ("mysql+pymysql", "pip install 'pymysql'"),
    ],
)
def test_a_missing_driver_is_reported_with_its_package(given: str, remedy: str) -> None:
    with pytest.raises(ServerStartError) as raised:
        server_store(given + REST)
    assert remedy in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "must be a database, got './mlruns'"),
        ("http://host:5000", "must be a database, got 'http://host:5000'"),
        ("", "must be a database, got ''"),
        ("sqlite://", "must not be in memory"),
        ("sqlite:///:memory:", "must not be in memory"),
        ("postgresql+asyncpg" + REST, "write postgresql+psycopg2 or postgresql+psycopg"),
    ],
)
def test_an_invalid_database_is_reported_with_valid_forms(uri: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        server_store(uri)
    assert said in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_relative_file_becomes_absolute(tmp_path: Path) -> None:
    assert server_store("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"


def test_an_unquoted_password_is_reported_but_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"urllib\.parse\.quote") as raised:
        server_store("postgresql://mlflow:p@ss:s3cr3t/part@db/runs")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "s3cr3t" not in str(raised.value)
