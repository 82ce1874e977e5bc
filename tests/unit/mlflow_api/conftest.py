"""Fixtures of the tests of requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from answering_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()
