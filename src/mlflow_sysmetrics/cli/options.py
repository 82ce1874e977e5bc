"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mlflow_sysmetrics.cli.table import counted
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
any_host_option = click.option("--any-host", is_flag=True, help="Journals of other hosts, too.")


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


def usable_directory(chosen: Path | None) -> Path:
    """Returns the directory of the journals for a command that takes some over.

    Raises:
        click.ClickException: it exists, and nothing in it can be.
    """
    directory = journals_directory(chosen)
    fault = directory_fault(directory)
    if fault is not None and os.path.lexists(directory):
        raise click.ClickException(fault)
    return directory


def directory_fault(directory: Path) -> str | None:
    """Returns why no journal can be kept in a directory; None where one can, or it can be made."""
    there = next((one for one in (directory, *directory.parents) if os.path.lexists(one)), directory)
    if not there.is_dir():
        why = f"{there} is no directory"
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        why = f"{there} cannot be read and written by this user"
    else:
        return None
    return f"{why}; no journal can be kept there, see {SPOOL_DIR}"


def tell_of_other_hosts(count: int) -> None:
    """Says how many journals a command leaves out, and how it would not."""
    if count:
        click.echo(f"{counted(count, 'journal')} of other hosts: --any-host.", err=True)
