"""`mlflow-sysmetrics server print-compose`: prints the files for Docker Compose, copies of deploy/."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import click

from mlflow_sysmetrics.cli.options import LocalDirectory, OneOf
from mlflow_sysmetrics.cli.output import say, say_wrapped
from mlflow_sysmetrics.cli.program import FAILED, Command

COMPOSE = "compose.yaml"
NAMES = (COMPOSE, "Dockerfile", "basic_auth.ini", ".env.example")


def deploy_file(name: str) -> str:
    """Returns the text of one of `NAMES`."""
    return (files("mlflow_sysmetrics.server") / "deploy" / name).read_text(encoding="utf-8")


@click.command(
    "print-compose",
    cls=Command,
    short_help="Print the files for Docker Compose.",
    exits={0: "the files were printed or written", FAILED: "a file could not be written"},
)
@click.option(
    "--file",
    "name",
    metavar="NAME",
    type=OneOf(NAMES),
    default=COMPOSE,
    show_default=True,
    help=f"The file to print: {', '.join(NAMES)}.",
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
        say(deploy_file(name).removesuffix("\n"))
        return
    existing = [one for one in NAMES if os.path.lexists(directory / one)]
    if existing:
        raise click.BadParameter(
            f"must be a directory without {', '.join(existing)}, got {str(directory)!r}", param_hint="--to"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for one in NAMES:
            with (directory / one).open("x", encoding="utf-8") as file:  # follows no link
                file.write(deploy_file(one))
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written: {error.strerror}") from error
    say_wrapped(f"Wrote {', '.join(NAMES)} to {directory}. Next, there:")
    say("  cp .env.example .env                   # and fill it in")
    say("  docker compose up --detach --build")
