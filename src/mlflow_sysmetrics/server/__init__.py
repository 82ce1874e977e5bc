"""A tracking server that starts correctly: `LocalServer` and its parts."""

from __future__ import annotations

from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.server.config import ServerConfig, server_command
from mlflow_sysmetrics.server.local_server import LocalServer

__all__ = ["LocalServer", "ServerConfig", "ServerStartError", "server_command"]
