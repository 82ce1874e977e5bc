"""`mlflow-sysmetrics server`: run a tracking server, with Docker or without, and inspect one."""

from __future__ import annotations

import click

from mlflow_sysmetrics.cli.server.doctor import doctor
from mlflow_sysmetrics.cli.server.print_compose import print_compose
from mlflow_sysmetrics.cli.server.run import run


@click.group(short_help="Run a tracking server, or check one.")
def server() -> None:
    """Run a tracking server here, print one for Docker Compose, or check one for problems."""


for command in (run, print_compose, doctor):
    server.add_command(command)
