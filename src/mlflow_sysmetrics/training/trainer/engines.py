"""Ignite's engines, imported and run without their noise."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from mlflow_sysmetrics.training.extras import needed

needed("torch", extra="train", by="Trainer")
with warnings.catch_warnings():
    # On torch 2.10 and newer: Ignite imports torch's distributed optimizers, whose own module is deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    needed("ignite", extra="train", by="Trainer")
    from ignite.engine import Engine, Events

__all__ = ["Events", "new_engine"]

_logger = logging.getLogger("mlflow_sysmetrics.training.engine")
# An engine reports each exception twice as an error, before it raises it to whom it belongs.
_logger.setLevel(logging.CRITICAL)


def new_engine(process: Callable[[Any, Any], Any]) -> Any:
    """Returns an engine that calls a function with itself and each batch."""
    engine = Engine(process)
    engine.logger = _logger
    return engine
