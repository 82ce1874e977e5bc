"""MLflow's file of basic authentication."""

from __future__ import annotations

import os
import secrets
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

from mlflow_sysmetrics.errors import ServerStartError, SettingsError
from mlflow_sysmetrics.server.config import BasicAuth

ADMIN = "admin"
_FILE, _USERS = "basic_auth.ini", "users.db"
_SHORTEST_PASSWORD = 12  # as MLflow 3 asks; older versions take any
_OWNER_ONLY = 0o600


def write_auth_file(directory: Path, password: str) -> BasicAuth:
    """Writes the file for a server whose users are kept in a directory, for nobody else to read.

    MLflow makes the administrator from it at the first start; later the password in its database counts.

    Raises:
        SettingsError: the password is too short, or MLflow would read another one.
        ServerStartError: what MLflow needs for it is not installed.
    """
    if not isinstance(password, str) or password != password.strip() or not password.isprintable():
        raise SettingsError(
            "admin_password must be printable text without blanks around it, which MLflow does not keep"
        )
    if len(password) < _SHORTEST_PASSWORD:
        raise SettingsError(f"admin_password must have at least {_SHORTEST_PASSWORD} characters")
    if find_spec("flask_wtf") is None:
        raise ServerStartError(
            "Basic authentication needs Flask-WTF, which is not installed: pip install Flask-WTF"
        )
    file = ConfigParser(interpolation=None)
    file["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{_USERS}",  # in the directory, which the server runs in
        "admin_username": ADMIN,
        "admin_password": password.replace("%", "%%"),  # MLflow reads it with interpolation
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    path = directory / _FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        file.write(out)
    return BasicAuth(config_path=str(path), secret_key=secrets.token_hex(32))
