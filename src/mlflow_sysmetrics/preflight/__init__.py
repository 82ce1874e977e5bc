"""Finds out before a training starts whether its tracking server can hold it.

The package is callable because it shares its name with the function `preflight`: once any module has imported
the package, ``mlflow_sysmetrics.preflight`` is the package, and calling it calls the function.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import Any

from mlflow_sysmetrics.errors import Attempt
from mlflow_sysmetrics.preflight.api import preflight, tracked_run
from mlflow_sysmetrics.preflight.request import PreflightResult
from mlflow_sysmetrics.preflight.status_files.documents import JobStatus
from mlflow_sysmetrics.preflight.status_files.files import read_status

__all__ = ["Attempt", "JobStatus", "PreflightResult", "preflight", "read_status", "tracked_run"]


class _CallablePackage(ModuleType):
    """A module that can be called like the function of the same name."""

    __call__ = staticmethod(preflight)

    @property
    def __signature__(self) -> Signature:
        # Without it, `inspect.signature` takes the first argument of `__call__` for self, and leaves it out.
        return signature(preflight)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
