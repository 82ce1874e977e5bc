"""Fixtures of the tests of requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from answering_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found
