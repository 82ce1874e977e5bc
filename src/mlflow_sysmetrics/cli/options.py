"""Options shared by several commands, and how their values are validated."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlflow_sysmetrics.cli.output import counted, say_wrapped
from mlflow_sysmetrics.daemon.journal.spool import spool_directory
from mlflow_sysmetrics.errors import JournalUnavailable
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.local_paths import local_directory
from mlflow_sysmetrics.settings import SPOOL_DIR, Settings

DURATION_FORMAT = "90s, 10m, 2h, 1d, or plain seconds"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)

# The schemes MLflow ships with; plugins add more. MLflow would create a directory for any other word.
_SCHEMES = frozenset(
    ("http", "https", "file", "sqlite", "mysql", "postgresql", "mssql", "databricks", "databricks-uc", "uc")
)
_URI_FORMAT = "http://HOST:PORT, sqlite:///PATH, or a directory such as ./mlruns"

_Command = TypeVar("_Command", bound=Callable[..., Any])
if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic since click 8.5


class LocalDirectory(_Type):
    """A directory of this machine; ``~`` is expanded, as a shell does not in ``--dir=~/x``.

    Args:
        exists: whether it must exist.
    """

    name = "directory"

    def __init__(self, *, exists: bool = False) -> None:
        self._must_exist = exists

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns its path, which stays relative if it is."""
        given = os.fspath(value)
        try:
            path = local_directory("", given)
        except ValueError as error:
            self.fail(str(error).strip(), param, ctx)
        found = path if given.startswith(("~", "file:")) else Path(given)
        # os.path never raises, unlike Path: not for a directory without permission or a name too long.
        if os.path.lexists(found) and not os.path.isdir(found):
            self.fail(f"must be a directory, got {given!r}, which is something else", param, ctx)
        if self._must_exist and not os.path.lexists(found):
            self.fail(f"must be a directory that exists, got {given!r}", param, ctx)
        return found


class Whole(_Type):
    """An integer.

    Args:
        least: the smallest that is accepted.
        most: the largest; None for no limit.
    """

    name = "integer"

    def __init__(self, least: int, most: int | None = None) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the integer."""
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or number < self._least or (self._most is not None and number > self._most):
            range_ = f">= {self._least}" if self._most is None else f"from {self._least} to {self._most}"
            self.fail(f"must be an integer {range_}, got {value!r}", param, ctx)
        return number


class Name(_Type):
    """A text that is not empty.

    Args:
        what: what it names, for the message.
    """

    name = "name"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text."""
        if not value.strip():
            self.fail(f"must be {self._what}, got {value!r}", param, ctx)
        return str(value)


class OneOf(_Type):
    """One of some words.

    Args:
        words: these.
    """

    name = "word"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the word."""
        if value not in self._words:
            self.fail(f"must be one of {', '.join(self._words)}, got {value!r}", param, ctx)
        return str(value)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
any_host_option = click.option("--any-host", is_flag=True, help="Include journals of other hosts.")
directory_option = click.option(
    "--dir",
    "chosen",
    metavar="PATH",
    type=LocalDirectory(exists=True),
    help=f"Directory of the journals.  [default: {SPOOL_DIR}, or the user's state directory]",
)


def tracking_uri_option(explained: str) -> Callable[[_Command], _Command]:
    """Returns the option ``--tracking-uri``.

    Args:
        explained: what the command does with the value.
    """
    return click.option("--tracking-uri", metavar="URI", callback=_checked_uri, help=explained)


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Option callback: returns the seconds of a duration above 0, or fails with a usage error."""
    seconds = duration_or_zero(context, option, value)
    if seconds == 0:
        raise click.BadParameter(f"must be above 0, got {value!r}; write for example 10m", context, option)
    return seconds


def duration_or_zero(context: click.Context, option: click.Parameter, value: str) -> float:
    """Option callback: returns the seconds of a duration, or fails with a usage error."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as "10m" or "600".

    Raises:
        ValueError: the text is not a duration; the message follows the name of what has the value.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"must be a duration ({DURATION_FORMAT}), got {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def check_tracking_uri(uri: str) -> None:
    """Checks that MLflow or a plugin supports the scheme of a tracking URI.

    Raises:
        ValueError: no store has this form; the message follows the name of what has the value.
    """
    scheme, colon, _ = uri.partition(":")
    if _is_path(uri) or scheme.partition("+")[0].lower() in _SCHEMES or scheme in _plugins():
        return
    # Without a scheme, redacted() leaves user and password in place.
    shown = redacted(uri).rpartition("@")[2]
    guess = f"; did you mean http://{shown}?" if colon and "://" not in uri else ""
    raise ValueError(f"must be a tracking URI ({_URI_FORMAT}), got {shown!r}{guess}")


def journals_directory(chosen: Path | None) -> Path:
    """Returns the directory of the journals, which need not exist unless it was given on the command line.

    Args:
        chosen: the value of ``--dir``.

    Raises:
        click.UsageError: the settings name no usable directory and ``--dir`` was not given.
    """
    if chosen is not None:
        return chosen
    try:
        return spool_directory(Settings.from_environ())
    except JournalUnavailable as error:
        raise click.UsageError(f"{error}, or pass a directory with --dir") from error


def usable_directory(chosen: Path | None) -> Path:
    """Returns the directory of the journals, for a command that takes over orphans in it.

    Raises:
        click.ClickException: the directory exists and this user cannot write in it.
    """
    directory = journals_directory(chosen)
    fault = directory_fault(directory)
    if fault is not None and os.path.lexists(directory):
        raise click.ClickException(fault)
    return directory


def directory_fault(directory: Path) -> str | None:
    """Returns why a directory cannot hold journals; None if it can, or can be created."""
    nearest = next((one for one in (directory, *directory.parents) if os.path.lexists(one)), directory)
    if not nearest.is_dir():
        why = f"{nearest} is not a directory"
    elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        why = f"this user cannot read and write {nearest}"
    else:
        return None
    return f"{why}, so no journal can be kept there; see {SPOOL_DIR}"


def print_skipped_hosts(count: int) -> None:
    """Prints how many journals of other hosts a command skipped, and the option that includes them."""
    if count:
        say_wrapped(f"Skipped {counted(count, 'journal')} of other hosts; include with --any-host.", err=True)


def _checked_uri(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
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
