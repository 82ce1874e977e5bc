"""The URI of a server's database: names an installed driver, and is independent of the directory."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.mlflow_api.tracking_uris import anchored, redacted
from mlflow_sysmetrics.runtime.distribution import install_command


class _Driver(NamedTuple):
    name: str
    module: str
    package: str


_PSYCOPG2 = _Driver("psycopg2", "psycopg2", "psycopg2-binary")
_PSYCOPG = _Driver("psycopg", "psycopg", "psycopg[binary]")
_MYSQL = (_Driver("pymysql", "pymysql", "pymysql"), _Driver("mysqldb", "MySQLdb", "mysqlclient"))
_MSSQL = (_Driver("pyodbc", "pyodbc", "pyodbc"), _Driver("pymssql", "pymssql", "pymssql"))
# By the dialect of a URI; the first installed driver is used. psycopg2 comes first, because it works with
# every supported MLflow. Hosting companies write "postgres", which SQLAlchemy does not know.
_DRIVERS = {
    "postgresql": (_PSYCOPG2, _PSYCOPG),
    "postgres": (_PSYCOPG2, _PSYCOPG),
    "mysql": _MYSQL,
    "mssql": _MSSQL,
}
_SQLITE = "sqlite"
_FORMS = "sqlite:////PATH.db or postgresql://USER:PASSWORD@HOST/DATABASE"


def server_store(uri: str) -> str:
    """Returns the URI of a database in a form that a server in another directory can use.

    ``postgresql://`` means psycopg 3 to SQLAlchemy 2.1 and psycopg2 to earlier versions, so the driver is
    always named.

    Raises:
        SettingsError: it does not name a database on disk or on a server, or cannot be parsed.
        ServerStartError: no driver for it is installed; says which package is missing.
    """
    scheme, colon, rest = uri.partition("://")
    dialect, _, driver = scheme.lower().partition("+")
    if colon and dialect == _SQLITE:
        if ":memory:" in rest or not rest.strip("/"):
            raise SettingsError(
                "backend_store_uri must not be in memory, where each worker would have its own database, "
                f"got {redacted(uri)!r}; write {_FORMS}"
            )
        return anchored(uri)
    if not colon or dialect not in _DRIVERS:
        raise SettingsError(f"backend_store_uri must be a database, got {redacted(uri)!r}; write {_FORMS}")
    _check_form(uri)
    chosen = _installed(uri, dialect, driver)
    family = "postgresql" if dialect == "postgres" else dialect
    return f"{family}+{chosen.name}://{rest}"


def _check_form(uri: str) -> None:
    """Checks that SQLAlchemy can parse a URI; its own error may quote the password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri)
    except (ArgumentError, ValueError):
        raise SettingsError(
            f"backend_store_uri must be a valid URI, got one for {redacted(uri)}. Quote @ : / ? # and % in a "
            "password with urllib.parse.quote(password, safe=''), or leave it out and set PGPASSWORD"
        ) from None


def _installed(uri: str, dialect: str, wanted: str) -> _Driver:
    known = _DRIVERS[dialect]
    fitting = tuple(one for one in known if wanted in {"", one.name})
    if not fitting:
        names = " or ".join(f"{dialect}+{one.name}" for one in known)
        raise SettingsError(
            f"backend_store_uri must name a known driver, got {redacted(uri)!r}; write {names}"
        )
    faults = [_fault_of(driver) for driver in fitting]
    installed = next((one for one, fault in zip(fitting, faults, strict=True) if fault is None), None)
    if installed is not None:
        return installed
    remedy = install_command("server") if _PSYCOPG2 in fitting else f"pip install '{fitting[0].package}'"
    why = ", ".join(filter(None, faults))
    raise ServerStartError(f"No driver for {redacted(uri)} can be imported: {why}. Install one: {remedy}")


def _fault_of(driver: _Driver) -> str | None:
    """Returns why a driver cannot be imported; None if it can."""
    try:
        import_module(driver.module)
    except ImportError as error:  # it is missing, or the database's client library that it needs
        return f"{driver.module} ({error})"
    return None
