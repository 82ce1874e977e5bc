"""MLflow's configuration file for basic authentication."""

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
_SHORTEST_PASSWORD = 12  # required by MLflow 3; older versions accept any
_OWNER_ONLY = 0o600


def write_auth_file(directory: Path, password: str) -> BasicAuth:
    """Writes the file, readable by its owner only, for a server that keeps its users in a directory.

    MLflow creates the administrator from it at the first start; later the password in its database counts.

    Raises:
        SettingsError: the password is too short, or MLflow would read a different one.
        ServerStartError: Flask-WTF, which MLflow needs for this, is not installed.
    """
    if not isinstance(password, str) or password != password.strip() or not password.isprintable():
        raise SettingsError(
            "admin_password must be printable text without spaces at its ends, which MLflow would strip"
        )
    if len(password) < _SHORTEST_PASSWORD:
        raise SettingsError(
            f"admin_password must have at least {_SHORTEST_PASSWORD} characters, got {len(password)}"
        )
    if find_spec("flask_wtf") is None:
        raise ServerStartError(
            "Basic authentication needs Flask-WTF, which is not installed. Install it: pip install Flask-WTF"
        )
    file = ConfigParser(interpolation=None)
    file["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{_USERS}",  # relative to the directory, in which the server runs
        "admin_username": ADMIN,
        "admin_password": password.replace("%", "%%"),  # MLflow reads it with interpolation
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    path = directory / _FILE
    path.unlink(missing_ok=True)  # it may be a link, or readable by others
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        file.write(out)
    return BasicAuth(config_path=str(path), secret_key=secrets.token_hex(32))
