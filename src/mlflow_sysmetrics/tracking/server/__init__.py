"""A tracking server that starts correctly: `LocalServer`, and what it is made of."""

from __future__ import annotations

from mlflow_sysmetrics.tracking.server.config import ServerConfig, server_command
from mlflow_sysmetrics.tracking.server.local_server import LocalServer
from mlflow_sysmetrics.tracking.server.start_error import ServerStartError

__all__ = ["LocalServer", "ServerConfig", "ServerStartError", "server_command"]
