"""The command line: one file per command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sysmetrics.cli.program import main

__all__ = ["main"]


def __getattr__(name: str) -> object:
    """Imports the program when it is asked for, so that `__main__` can report what is missing for it."""
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_sysmetrics.cli import program

    return program.main
