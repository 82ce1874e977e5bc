"""Optuna's storage, checked before Optuna writes to it: MLflow's database is not for a second tool.

Optuna and MLflow both keep the version of their schema in a table ``alembic_version``. Whoever comes second
finds the other's version, fails with a message that does not name the cause, and leaves its tables behind.
Sources: optuna/optuna#2866, mlflow/mlflow#2923.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from mlflow_sysmetrics.mlflow_api.fluent_state import current_tracking_uri

_TABLES_OF_MLFLOW = frozenset({"experiments", "runs", "latest_metrics"})
_MEMORY = (None, "", ":memory:")


def check_storage(storage: object) -> None:
    """Checks that a storage is not MLflow's database; changes nothing there.

    Args:
        storage: what the user passed. Only a database URL is checked; an Optuna storage has made its tables.

    Raises:
        ValueError: it is MLflow's database, or its path begins with ``~``.
    """
    if not isinstance(storage, str):
        return
    try:
        url = make_url(storage)
    except SQLAlchemyError:
        return  # Optuna says what it expects
    if _is_file(url) and str(url.database).startswith("~"):
        home = Path(os.path.expanduser(str(url.database)))  # noqa: PTH111 - Path.expanduser may raise
        raise ValueError(
            f"storage must name the complete path of its file, as ~ is not expanded in a database URL, got "
            f"{storage!r}. Write {url.set(database=str(home))}"
        )
    if _is_tracking_database(url) or _has_tables_of_mlflow(url):
        raise ValueError(
            f"storage must be a database of Optuna's own, got {url!r}, which is MLflow's: both keep the "
            f"version of their tables in a table alembic_version, and fail if they share it. {_remedy(url)}"
        )


def _remedy(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "Use another file, such as sqlite:///study.db"
    return "Create a second database on the same server, such as CREATE DATABASE optuna, and use its URL"


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database not in _MEMORY


def _is_tracking_database(url: URL) -> bool:
    """Returns whether runs are tracked in this database, even if it has no tables yet."""
    tracking = current_tracking_uri()
    if "://" not in tracking or tracking.startswith(("http:", "https:", "file:")):
        return False
    try:
        return _place(make_url(tracking)) == _place(url)
    except SQLAlchemyError:
        return False


def _place(url: URL) -> tuple[Any, ...]:
    """Returns what names a database, whichever driver and user are used."""
    if url.get_backend_name() == "sqlite":
        return ("sqlite", object() if url.database in _MEMORY else os.path.realpath(str(url.database)))
    return (url.get_backend_name(), url.host, url.port, url.database)


def _has_tables_of_mlflow(url: URL) -> bool:
    if url.get_backend_name() == "sqlite" and not (_is_file(url) and Path(str(url.database)).exists()):
        return False  # to look would create the file
    try:
        engine = create_engine(url)
    except (SQLAlchemyError, ImportError):
        return False  # Optuna names the missing driver
    try:
        return set(inspect(engine).get_table_names()) >= _TABLES_OF_MLFLOW
    except SQLAlchemyError:
        return False  # Optuna says why it cannot be reached
    finally:
        engine.dispose()
