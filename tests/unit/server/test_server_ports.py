"""Ports to listen on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.server.ports import check_port, free_port, listens

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with closing(socket.socket()) as listening:
        listening.bind((HOST, 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_free_port_is_available() -> None:
    check_port(HOST, free_port(HOST))


def test_a_used_port_is_reported_with_a_remedy(taken: int) -> None:
    with pytest.raises(ServerStartError, match=rf"Port {taken} of 127\.0\.0\.1 .* choose another port"):
        check_port(HOST, taken)


def test_a_port_with_closing_connections_is_available() -> None:
    """A server can be restarted at once, as servers themselves allow."""
    with closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, 0))
        listening.listen()
        port = listening.getsockname()[1]
        with closing(socket.create_connection((HOST, port))) as client:
            accepted, _ = listening.accept()
            accepted.close()  # the side that closes first keeps the port for a while
            client.recv(1)
    check_port(HOST, port)


def test_an_address_of_another_machine_is_reported() -> None:
    with pytest.raises(ServerStartError, match=r"This machine has no address 203\.0\.113\.1"):
        free_port("203.0.113.1")


def test_a_listening_port_is_found(taken: int) -> None:
    assert listens(os.getpid(), taken) is True
    assert listens(os.getpid(), 1) is False


def test_a_process_that_is_gone_does_not_listen(taken: int) -> None:
    assert listens(2**22 + 1, taken) is False
