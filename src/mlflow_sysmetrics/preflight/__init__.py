"""Whether a training can be tracked, found out before it starts.

The package can be called, since it and the function `preflight` share their name: once anything has imported
the package, ``mlflow_sysmetrics.preflight`` is the package, and calling it calls the function.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from mlflow_sysmetrics.preflight.api import preflight
from mlflow_sysmetrics.preflight.attempts import PreflightResult
from mlflow_sysmetrics.preflight.context import tracked_run
from mlflow_sysmetrics.preflight.status_files.files import read_status

__all__ = ["PreflightResult", "preflight", "read_status", "tracked_run"]


class _CallablePackage(ModuleType):
    """A module that can be called as the function of its own name."""

    __call__ = staticmethod(preflight)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
