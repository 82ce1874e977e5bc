"""Ports to listen on: one that is free, and whether a given one is."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import psutil

from mlflow_sysmetrics.errors import ServerStartError


def free_port(host: str) -> int:
    """Returns a port that nobody listens on now; somebody else may be faster to take it.

    Raises:
        ServerStartError: this machine has no such address.
    """
    with closing(_bound(host, 0)) as found:
        port: int = found.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Checks that a port can be listened on.

    Raises:
        ServerStartError: somebody else listens there, or this user may not.
    """
    _bound(host, port).close()


def listens(pid: int, port: int) -> bool | None:
    """Returns whether a process or one of its children listens on a port; None where that cannot be told.

    Something else may have taken the port, perhaps another tracking server, which would answer as well.
    """
    try:
        server = psutil.Process(pid)
        family = [server, *server.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None
    looked = False
    for process in family:
        try:
            # It had the other name before psutil 6.
            look = getattr(process, "net_connections", None) or process.connections
            found = look(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except psutil.Error:  # macOS does not let everybody look
            continue
        looked = True
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found):
            return True
    return False if looked else None


def _bound(host: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As servers do it: a port whose last connections are still closing is free. On Windows the same option
    # would let us share the port of somebody else who listens.
    windows = sys.platform == "win32"
    option = socket.SO_EXCLUSIVEADDRUSE if windows else socket.SO_REUSEADDR  # type: ignore[attr-defined,unused-ignore]
    found.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ServerStartError(_why_not(host, port, error)) from error
    return found


def _why_not(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"This user may not listen on port {port}; choose one from 1024."
    if isinstance(error, socket.gaierror) or port == 0:
        return f"This machine has no address {host} to listen on ({error.strerror})."
    return (
        f"Port {port} of {host} cannot be listened on ({error.strerror}). End what uses it "
        f"(ss -ltnp 'sport = :{port}' tells), or choose another port; with none (--port 0) it is one that "
        "is free."
    )
