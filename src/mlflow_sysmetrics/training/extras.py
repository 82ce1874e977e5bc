"""Imports the libraries that an extra installs, where they are used; the error says how to install them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mlflow_sysmetrics.runtime.distribution import install_command


def needed(module: str, *, extra: str, by: str) -> ModuleType:
    """Imports and returns a module of an extra.

    Args:
        module: its name, such as "optuna".
        extra: the extra of this package that installs it, such as "hpo".
        by: the public name that needs it, such as "OptunaRunner".

    Raises:
        ModuleNotFoundError: it is not installed; says how to install what the extra has.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # the module is installed but lacks a dependency
        raise ModuleNotFoundError(
            f"{by} needs {error.name}, which is not installed: {install_command(extra)}",
            name=error.name,
        ) from None
