"""Ignite's engines: imported and run without their noise, over loaders of any length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mlflow_sysmetrics.training.extras import needed

needed("torch", extra="train", by="Trainer")
with warnings.catch_warnings():
    # Ignite imports torch's distributed optimizers, a module that torch 2.10 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    needed("ignite", extra="train", by="Trainer")
    from ignite.engine import Engine, Events

__all__ = ["Events", "Passes", "new_engine"]

_logger = logging.getLogger("mlflow_sysmetrics.training.engine")
# An engine logs each exception twice as an error before raising it to the caller, who handles it.
_logger.setLevel(logging.CRITICAL)


def new_engine(process: Callable[[Any, Any], Any]) -> Any:
    """Returns an engine that calls a function with itself and each batch."""
    engine = Engine(process)
    engine.logger = _logger
    return engine


class Passes:
    """Iterates over a loader repeatedly: each pass ends with StopIteration, and the next call starts another.

    Given a length, Ignite cuts or extends every epoch to it, although an iterable dataset or batches by size
    may vary in number. Given none, it ends an epoch when the iterator ends.

    Args:
        loader: is iterated once per pass.

    Attributes:
        batches: number of batches so far in this pass.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.batches = 0
        self._loader = loader
        self._running: Iterator[Any] | None = None

    def __iter__(self) -> Passes:
        # Ignite iterates again after an epoch that was terminated: the next one has all batches.
        self._running = None
        return self

    def __next__(self) -> Any:
        if self._running is None:
            self.batches = 0
            self._running = iter(self._loader)
        try:
            batch = next(self._running)
        except StopIteration:
            self._running = None  # ends the loader's workers now, as a for loop would
            raise
        self.batches += 1
        return batch
