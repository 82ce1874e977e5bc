"""Ports to listen on: finds a free one, and checks a given one."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import psutil

from mlflow_sysmetrics.errors import ServerStartError


def free_port(host: str) -> int:
    """Returns a port that is free now; another process may take it before the caller does.

    Raises:
        ServerStartError: this machine has no such address.
    """
    with closing(_bound(host, 0)) as found:
        port: int = found.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Checks that a port can be listened on.

    Raises:
        ServerStartError: another process listens on it, or this user is not allowed to.
    """
    _bound(host, port).close()


def listens(pid: int, port: int) -> bool | None:
    """Returns whether a process or one of its children listens on a port; None if that cannot be determined.

    Another process may have taken the port, even another tracking server, which would respond as well.
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
            # Named `connections` before psutil 6.
            list_connections = getattr(process, "net_connections", None) or process.connections
            connections = list_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except psutil.Error:  # macOS allows this to root only
            continue
        looked = True
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
            return True
    return False if looked else None


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Like servers do: a port whose last connections are still closing is free. On Windows the same option
    # would share the port with another process that listens on it.
    windows = sys.platform == "win32"
    option = socket.SO_EXCLUSIVEADDRUSE if windows else socket.SO_REUSEADDR  # type: ignore[attr-defined,unused-ignore]
    listener.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServerStartError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"This user is not allowed to listen on port {port}; choose one >= 1024."
    if isinstance(error, socket.gaierror) or port == 0:
        return f"This machine has no address {host} to listen on ({error.strerror})."
    return (
        f"Port {port} of {host} is not available ({error.strerror}). Stop the process that uses it "
        f"(ss -ltnp 'sport = :{port}' shows it), or choose another port; without one (--port 0) a free port "
        "is used."
    )
