"""A docker daemon for `nox -s containers` and `nox -s docker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_host import Docker, docker_here


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A daemon; see `docker_host`."""
    with docker_here() as found:
        yield found


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest) -> Path:
    """A directory that is kept from one session to the next."""
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("containers"))
