"""Imports libraries that are not requirements, where they are used; the error says how to install them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
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


def first_installed(*modules: str, install: str) -> ModuleType:
    """Imports and returns the first of several modules that is installed; prefers one that is already loaded.

    Args:
        modules: names of modules, of which the adapter needs one.
        install: the package to install if there is none, for the message.

    Raises:
        ModuleNotFoundError: none is installed; says what to install.
    """
    for module in sorted(modules, key=lambda name: name not in sys.modules):
        if module in sys.modules or find_spec(module.partition(".")[0]) is not None:
            return import_module(module)
    name = modules[0].partition(".")[0]
    raise ModuleNotFoundError(
        f"This adapter needs {name}, which is not installed: pip install {install}", name=name
    )
