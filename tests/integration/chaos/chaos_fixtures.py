"""Fixtures of the chaos suite; its test files load this module as a plugin.

Not a conftest.py: the tests one floor up import theirs by that name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_nursery import Nursery
from chaos_proxy import Proxy
from chaos_server import TrackingServer
from chaos_starter import Starter
from databases import KINDS
from programs import Databases


@pytest.fixture(scope="session", params=KINDS)
def session_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[TrackingServer]:
    """The one real server of a session on each kind of database, for tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("server")
    server = TrackingServer(databases(request.param).new(directory), directory / "log")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def tracking(session_server: TrackingServer) -> TrackingServer:
    """A real `mlflow server`, running."""
    return session_server


@pytest.fixture
def proxy(tracking: TrackingServer) -> Iterator[Proxy]:
    """A proxy in front of the server, without trouble at first."""
    running = Proxy(tracking.port)
    yield running
    running.close()


@pytest.fixture(scope="session")
def session_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts programs from the fork server, with the environment of a session's start."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_"))]:
            patch.delenv(name)
        yield Nursery(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The directory for the journals of the programs of a test."""
    return tmp_path / "spool"


@pytest.fixture
def start(session_nursery: Nursery, spool: Path) -> Iterator[Starter]:
    """Starts programs; those that still run when the test ends are killed."""
    starter = Starter(session_nursery, spool)
    yield starter
    starter.end()
