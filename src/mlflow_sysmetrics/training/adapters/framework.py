"""The frameworks that the adapters are for: imported by their own adapter, named where they are missing."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def first_installed(*modules: str, install: str) -> ModuleType:
    """Returns the first of several modules that is installed, and rather one that is loaded already.

    Args:
        modules: their names; any of them will do.
        install: what to install where there is none.

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
