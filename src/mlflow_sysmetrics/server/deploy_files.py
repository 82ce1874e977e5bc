"""The files for Docker Compose that the package contains: copies of deploy/ in the source tree."""

from __future__ import annotations

from importlib.resources import files

COMPOSE = "compose.yaml"
NAMES = (COMPOSE, "Dockerfile", "basic_auth.ini", ".env.example")


def deploy_file(name: str) -> str:
    """Returns the text of one of `NAMES`."""
    return (files("mlflow_sysmetrics.server") / "deploy" / name).read_text(encoding="utf-8")
