"""The files for Docker Compose that come with the package: copies of those in deploy/ of the sources."""

from __future__ import annotations

from importlib.resources import files

COMPOSE = "compose.yaml"
NAMES = (COMPOSE, "Dockerfile", "basic_auth.ini", ".env.example")


def deploy_file(name: str) -> str:
    """Returns the text of one of them."""
    return (files("mlflow_sysmetrics.server") / "deploy" / name).read_text(encoding="utf-8")
