"""`mlflow-sysmetrics server`: run a tracking server, with Docker or without, and inspect one."""

from __future__ import annotations

import click

from mlflow_sysmetrics.cli.program import Group


@click.group(
    cls=Group,
    short_help="Run a tracking server, or check one.",
    homes={
        name: f"mlflow_sysmetrics.cli.server.{name.replace('-', '_')}"
        for name in ("run", "print-compose", "doctor")
    },
)
def server() -> None:
    """Run a tracking server here, print one for Docker Compose, or check one for problems."""
