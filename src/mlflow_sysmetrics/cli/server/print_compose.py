"""`mlflow-sysmetrics server print-compose`: prints the files for Docker Compose."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mlflow_sysmetrics.cli.findings import say
from mlflow_sysmetrics.cli.options import LocalDirectory
from mlflow_sysmetrics.server.deploy_files import COMPOSE, NAMES, deploy_file


@click.command("print-compose", short_help="Print the files for Docker Compose.")
@click.option(
    "--file",
    "name",
    type=click.Choice(NAMES),
    default=COMPOSE,
    show_default=True,
    help="The file to print.",
)
@click.option(
    "--to",
    "directory",
    metavar="PATH",
    type=LocalDirectory(),
    help="Write all files into a directory that has none of them yet.",
)
def print_compose(*, name: str, directory: Path | None) -> None:
    """Print the compose file of a tracking server on PostgreSQL, or write it with all files it needs."""
    if directory is None:
        click.echo(deploy_file(name), nl=False)
        return
    existing = [one for one in NAMES if os.path.lexists(directory / one)]
    if existing:
        raise click.UsageError(f"{directory} already has {', '.join(existing)}; choose another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for one in NAMES:
            with (directory / one).open("x", encoding="utf-8") as file:  # follows no link
                file.write(deploy_file(one))
    except OSError as error:
        raise click.ClickException(f"{directory}: {error.strerror}") from error
    say(f"Wrote {', '.join(NAMES)} to {directory}.")
    say(f"Next: cd {directory} && cp .env.example .env, fill in .env, docker compose up --detach --build")
