"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

from mlflow_sysmetrics.cli.table import counted
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings

# FOLDED durations: Durations as people write and read them: "90s", "10m", "2h", "1d", "90"; "12 min".

FORMAT = "90s, 10m, 2h, 1d, or plain seconds"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)
# A unit is left for the next one at two of it: "90 s" says more than "2 min", and "119 min" less than "2 h".
_SPOKEN = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Is the callback of an option: returns the seconds, or ends the command with what would be right."""
    seconds = wait(context, option, value)
    if seconds == 0:
        fault = f"{value!r} is no time at all; write a number over 0, such as 10m"
        raise click.BadParameter(fault, context, option)
    return seconds


def wait(context: click.Context, option: click.Parameter, value: str) -> float:
    """Is the callback of an option that takes 0, too: not to wait."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as "10m", or "600".

    Raises:
        ValueError: it is none; the message names the value and the remedy.
    """
    found = _PATTERN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no duration; write {FORMAT}")
    return float(found[1]) * _SECONDS[found[2]]


def spoken(seconds: float) -> str:
    """Returns a length of time in its largest fitting unit: "90 s", "12 min", "5 h", "3 d"."""
    for least, unit, name in _SPOKEN:
        if seconds >= least:
            return f"{seconds // unit:.0f} {name}"
    return "0 s"  # the wall clock was set back


# FOLDED tracking_uri_option: The option `--tracking-uri`, and what is said of a value that no store of MLflow's can be.

_Command = TypeVar("_Command", bound=Callable[..., Any])

# What MLflow brings; a plugin brings more. A word that is neither would be made a directory.
_SCHEMES = frozenset(
    ("http", "https", "file", "sqlite", "mysql", "postgresql", "mssql", "databricks", "databricks-uc", "uc")
)
_FORMS = "http://HOST:PORT, sqlite:///PATH, or a directory such as ./mlruns"


def tracking_uri_option(explained: str) -> Callable[[_Command], _Command]:
    """Returns the option.

    Args:
        explained: what the command does with it.
    """
    return click.option("--tracking-uri", metavar="URI", callback=_checked, help=explained)


def check_tracking_uri(uri: str) -> None:
    """Checks that MLflow, or a plugin, can have a store of this form.

    Raises:
        ValueError: it cannot; the message names the value and the remedy.
    """
    scheme, colon, _ = uri.partition(":")
    if _is_path(uri) or scheme.partition("+")[0].lower() in _SCHEMES or scheme in _plugins():
        return
    shown = redacted(uri).rpartition("@")[2]  # a password may stand before a name without a scheme, too
    guess = f"; is it http://{shown}?" if colon and "://" not in uri else ""
    raise ValueError(f"{shown!r} is no tracking URI; write {_FORMS}{guess}")


def _checked(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            check_tracking_uri(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from error
    return value


def _is_path(uri: str) -> bool:
    if "://" in uri:
        return False
    path = Path(uri)
    return (
        uri.startswith((".", "~"))
        or path.is_absolute()
        or (":" not in uri and "/" in uri)
        or (uri != "" and path.is_dir())
    )


def _plugins() -> set[str]:
    return {point.name for point in entry_points(group="mlflow.tracking_store")}


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
