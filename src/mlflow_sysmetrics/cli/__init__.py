"""The command line: one file per command."""

from __future__ import annotations

import click

from mlflow_sysmetrics.cli.check import check
from mlflow_sysmetrics.cli.doctor import doctor
from mlflow_sysmetrics.cli.reap import reap
from mlflow_sysmetrics.cli.server import server
from mlflow_sysmetrics.cli.status import status
from mlflow_sysmetrics.cli.sync import sync

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-sysmetrics")
def main() -> None:
    """Check tracking before a job (check, doctor) and recover runs after a crash (status, sync, reap)."""


for command in (status, sync, reap, check, doctor, server):
    main.add_command(command)
