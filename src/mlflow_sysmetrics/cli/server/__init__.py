"""`mlflow-sysmetrics server`: a tracking server that starts correctly, with Docker and without."""

from __future__ import annotations

import click

from mlflow_sysmetrics.cli.server.doctor import doctor
from mlflow_sysmetrics.cli.server.print_compose import print_compose
from mlflow_sysmetrics.cli.server.run import run


@click.group()
def server() -> None:
    """Run a tracking server here, print one for Docker Compose, or look what is wrong with one."""


for command in (run, print_compose, doctor):
    server.add_command(command)
