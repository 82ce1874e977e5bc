"""MLflow's log lines about what we have chosen for the caller, kept from him; his logging, kept as it is."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# By logger: how a line begins that says nothing to whoever called us.
_NOISE = {
    # We choose pickle, for the reasons that docs/registry.md gives; MLflow 3 warns of it each time.
    "mlflow.pytorch": ("Saving pytorch model by Pickle",),
    "mlflow.sklearn": ("Saving scikit-learn models in the pickle",),
    # "Waiting up to 300 seconds", said also of a version that is ready.
    "mlflow.store.model_registry.abstract_store": ("Waiting up to",),
}
_SETS_UP_LOGGING = "mlflow.pytorch"


class _OfThisThread(logging.Filter):
    """Drops lines that begin so, when the thread logs them that made this filter."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or not record.getMessage().startswith(self._beginnings)


@contextmanager
def without_noise() -> Iterator[None]:
    """Keeps back, in this thread and inside the ``with`` block, what MLflow logs about our own choices."""
    filters = [(logging.getLogger(name), _OfThisThread(said)) for name, said in _NOISE.items()]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


@contextmanager
def same_root_logger() -> Iterator[None]:
    """Leaves the root logger as it is when MLflow's module for PyTorch is imported inside the ``with`` block.

    That module calls ``logging.basicConfig(level=logging.ERROR)``, seen in MLflow 2.22 and 3.17, and a
    program that has not set up its logging would hear of no warning any more: not ours, not its own.
    """
    if _SETS_UP_LOGGING in sys.modules:
        yield
        return
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        if _SETS_UP_LOGGING in sys.modules and not handlers:  # with handlers, it has done nothing
            root.setLevel(level)
            for handler in set(root.handlers) - set(handlers):
                root.removeHandler(handler)
