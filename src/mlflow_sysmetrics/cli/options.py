"""Options that several commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_sysmetrics.daemon.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings

directory_option = click.option(
    "--dir",
    "chosen",
    metavar="PATH",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Directory of the journals.  [default: {SPOOL_DIR}, or the user's state directory]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
tracking_uri_option = click.option(
    "--tracking-uri", metavar="URI", help="Tracking server, with the user and password that it needs."
)


def journals_directory(chosen: Path | None) -> Path:
    """Returns the directory of the journals, which need not exist unless it was chosen.

    Args:
        chosen: what the command line says.

    Raises:
        click.UsageError: there is none, and the command line names none.
    """
    if chosen is not None:
        return chosen
    try:
        return spool_directory(Settings.from_environ())
    except JournalUnavailable as error:
        raise click.UsageError(f"{error}, or name a directory with --dir") from error
