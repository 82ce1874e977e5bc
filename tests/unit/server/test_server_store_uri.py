"""Which driver a server's database is spoken to with, and what is said where there is none."""

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
    """Has no driver, whatever there is."""
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
def test_the_driver_that_is_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, given: str, drivers: list[str], found: str
) -> None:
    for name in drivers:
        install(monkeypatch, name)
    assert server_store(given + REST) == found + REST


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("postgresql", 'pip install "mlflow-sysmetrics[server]"'),
        ("postgresql+psycopg2", 'pip install "mlflow-sysmetrics[server]"'),
        ("postgresql+psycopg", "pip install 'psycopg[binary]'"),
        ("mysql+pymysql", "pip install 'pymysql'"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_its_package(given: str, remedy: str) -> None:
    with pytest.raises(ServerStartError) as raised:
        server_store(given + REST)
    assert remedy in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "'./mlruns', which is no database"),
        ("http://host:5000", "'http://host:5000', which is no database"),
        ("", "'', which is no database"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql+asyncpg" + REST, "write postgresql+psycopg2 or postgresql+psycopg"),
    ],
)
def test_what_is_no_database_is_said_with_what_would_be_one(uri: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        server_store(uri)
    assert said in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_file_means_the_same_in_the_directory_of_the_server(tmp_path: Path) -> None:
    assert server_store("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"


def test_a_password_that_is_not_quoted_is_said_and_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"urllib\.parse\.quote") as raised:
        server_store("postgresql://mlflow:p@ss:s3cr3t/part@db/runs")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "s3cr3t" not in str(raised.value)
