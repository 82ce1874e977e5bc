"""What a server's database says of itself, asked with SQLAlchemy: nothing is made or migrated."""

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
    """What a database says.

    Attributes:
        is_empty: whether it has no tables at all.
        revision: of MLflow's schema in it; None where there is none.
        most_connections: how many it takes at the same time; None where it does not say.
    """

    is_empty: bool
    revision: str | None
    most_connections: int | None


def reach_database(uri: str, seconds: float) -> None:
    """Returns if the database lets us in.

    Raises:
        Fault: it does not, or not in time.
    """
    _asked(uri, seconds, lambda _connection: None)


def database_state(uri: str, seconds: float) -> DatabaseState:
    """Returns what a database says of itself.

    Raises:
        Fault: it does not, or not in time.
    """
    return _asked(uri, seconds, _state)


def newest_revision() -> str:
    """Returns the revision of the schema that the installed MLflow works with."""
    from alembic.script import ScriptDirectory

    spec = find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
    # ScriptDirectory.get_current_head raises where there is more than one, as MLflow itself does.
    migrations = Path(spec.submodule_search_locations[0], "store", "db_migrations")
    return str(ScriptDirectory(str(migrations)).get_current_head())


def _asked(uri: str, seconds: float, ask: Callable[[Connection], T]) -> T:
    from sqlalchemy import create_engine

    def connect_and_ask() -> T:
        engine = create_engine(uri)
        try:
            with engine.connect() as connection:
                return ask(connection)
        finally:
            engine.dispose()

    try:
        return bounded(connect_and_ask, seconds)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's and those of whatever driver the URI names
        fault = fault_of_error(error, uri, seconds=seconds)
    raise fault  # out here it carries no exception of the driver's, whose text may have the password


def _state(connection: Connection) -> DatabaseState:
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect

    tables = inspect(connection).get_table_names()
    revision = MigrationContext.configure(connection).get_current_revision()
    return DatabaseState(not tables, revision, _most_connections(connection))


def _most_connections(connection: Connection) -> int | None:
    """Returns for how many ordinary users there is room; a few places are the administrator's."""
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        names = ("max_connections", "superuser_reserved_connections")
        most, reserved = (connection.execute(text(f"SHOW {name}")).scalar_one() for name in names)
        return int(most) - int(reserved)
    if connection.dialect.name == "mysql":
        with suppress(TypeError, ValueError):
            return int(connection.execute(text("SELECT @@max_connections")).scalar_one())
    return None
