"""Libraries that come with an extra: imported where they are used, and named where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def needed(module: str, *, extra: str, by: str) -> ModuleType:
    """Returns a module of an extra.

    Args:
        module: its name, such as "optuna".
        extra: the extra of this package that brings it, such as "hpo".
        by: what needs it, as people know it, such as "OptunaRunner".

    Raises:
        ModuleNotFoundError: it is not installed; says which extra brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # installed, and lacks something of its own
        raise ModuleNotFoundError(
            f'{by} needs {error.name}, which is not installed: pip install "mlflow-sysmetrics[{extra}]"',
            name=error.name,
        ) from None
