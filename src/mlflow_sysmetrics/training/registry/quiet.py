"""Suppresses MLflow's log lines about choices of this package, and preserves the program's logging setup."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# By logger: the beginnings of lines that mean nothing to the caller.
_NOISE = {
    # This package chooses pickle, see docs/how_to/registry.md; MLflow 3 warns about it each time.
    "mlflow.pytorch": ("Saving pytorch model by Pickle",),
    "mlflow.sklearn": ("Saving scikit-learn models in the pickle",),
    # "Waiting up to 300 seconds", logged also for a version that is ready.
    "mlflow.store.model_registry.abstract_store": ("Waiting up to",),
}
_SETS_UP_LOGGING = "mlflow.pytorch"


class _DropFromThisThread(logging.Filter):
    """Drops lines with one of the given beginnings if the thread that created the filter logs them."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or not record.getMessage().startswith(self._beginnings)


@contextmanager
def without_noise() -> Iterator[None]:
    """Suppresses what MLflow logs in this thread about choices of this package, inside the ``with`` block."""
    filters = [(logging.getLogger(name), _DropFromThisThread(lines)) for name, lines in _NOISE.items()]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


@contextmanager
def same_root_logger() -> Iterator[None]:
    """Restores the root logger after an import of MLflow's PyTorch module inside the ``with`` block.

    That module calls ``logging.basicConfig(level=logging.ERROR)`` (seen in MLflow 2.22 and 3.17). A program
    that has not set up logging would then see no warnings any more, neither its own nor those of this
    package.
    """
    if _SETS_UP_LOGGING in sys.modules:
        yield
        return
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        if _SETS_UP_LOGGING in sys.modules and not handlers:  # basicConfig does nothing if there are handlers
            root.setLevel(level)
            for handler in set(root.handlers) - set(handlers):
                root.removeHandler(handler)
