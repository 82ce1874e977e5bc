"""The option `--tracking-uri`, and what is said of a value that no store of MLflow's can be."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

from mlflow_sysmetrics.tracking_uris import redacted

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
