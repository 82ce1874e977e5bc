"""The state of a server's database, read with SQLAlchemy: creates and migrates nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.runtime.bounded_calls import bounded

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")


@dataclass(frozen=True)
class DatabaseState:
    """The state of a database.

    Attributes:
        is_empty: whether it has no tables at all.
        revision: revision of MLflow's schema in it; None if it has none.
        most_connections: how many it accepts at the same time; None if it does not report that.
    """

    is_empty: bool
    revision: str | None
    most_connections: int | None


def reach_database(uri: str, seconds: float) -> None:
    """Connects to the database and disconnects again.

    Raises:
        Fault: the database refuses the connection, or does not accept it in time.
    """
    _with_connection(uri, seconds, lambda _connection: None)


def database_state(uri: str, seconds: float) -> DatabaseState:
    """Returns the state of a database.

    Raises:
        Fault: the database refuses the connection or the query, or does not answer in time.
    """
    return _with_connection(uri, seconds, _state)


def newest_revision() -> str:
    """Returns the schema revision that the installed MLflow needs."""
    from alembic.script import ScriptDirectory

    spec = find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    # Like MLflow itself, ScriptDirectory.get_current_head raises if there is more than one.
    migrations = Path(spec.submodule_search_locations[0], "store", "db_migrations")
    return str(ScriptDirectory(str(migrations)).get_current_head())


def _with_connection(uri: str, seconds: float, query: Callable[[Connection], T]) -> T:
    from sqlalchemy import create_engine

    def connect_and_query() -> T:
        engine = create_engine(uri)
        try:
            with engine.connect() as connection:
                return query(connection)
        finally:
            engine.dispose()

    try:
        return bounded(connect_and_query, seconds)
    except Exception as error:  # SQLAlchemy's, or of the driver that the URI names
        fault = fault_of_error(error, uri, seconds=seconds)
    raise fault  # out here it does not carry the driver's exception, whose text may hold the password


def _state(connection: Connection) -> DatabaseState:
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect

    tables = inspect(connection).get_table_names()
    revision = MigrationContext.configure(connection).get_current_revision()
    return DatabaseState(not tables, revision, _most_connections(connection))


def _most_connections(connection: Connection) -> int | None:
    """Returns the number of connections for ordinary users; a few are reserved for administrators."""
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        names = ("max_connections", "superuser_reserved_connections")
        most, reserved = (connection.execute(text(f"SHOW {name}")).scalar_one() for name in names)
        return int(most) - int(reserved)
    if connection.dialect.name == "mysql":
        with suppress(TypeError, ValueError):
            return int(connection.execute(text("SELECT @@max_connections")).scalar_one())
    return None
