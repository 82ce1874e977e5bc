"""Imports the framework of an adapter; the error says what to install."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


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
