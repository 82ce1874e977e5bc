"""Starts what shows the last tick to others: a page for Prometheus, a sender for OpenTelemetry.

Both are off by default. Neither reads a source, and neither can break or delay a training: what is wrong is
one warning.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import Protocol

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.exports.last_tick import Source
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.loops import log_queue
from mlflow_sysmetrics.settings import OTLP, PROMETHEUS, Settings

_logger = Log()


class Export(Protocol):
    """One of them, with a thread of its own."""

    def start(self) -> None:
        """Starts its thread."""

    def forget_after_fork(self) -> None:
        """Closes in a forked child what belongs to the parent."""


_running: list[Export] = []


class Publisher:
    """Shows the last tick of a source to those that the settings name.

    Args:
        settings: those of the first attach of the process.
        source: the sampler.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        # Their libraries are imported here: where `start` is called, a lock is held.
        wanted = ((PROMETHEUS, "prometheus", settings.prometheus), (OTLP, "otlp", settings.otlp))
        self._exports = [
            (variable, export)
            for variable, extra, address in wanted
            if address is not None and (export := _made(variable, extra, address, source)) is not None
        ]

    def start(self) -> None:
        """Starts their threads. Raises nothing, and logs in another thread."""
        for variable, export in self._exports:
            try:
                export.start()
            except ThreadUnavailable as error:
                _warn("mlflow-sysmetrics: %s has no effect: %s.", variable, error)
            else:
                _running.append(export)


def _made(variable: str, extra: str, address: str, source: Source) -> Export | None:
    """Returns an export that is not started; None if its library is not installed."""
    try:
        return _export(extra, address, source)
    except ImportError as error:
        from mlflow_sysmetrics.runtime.distribution import install_command  # rarely needed

        name = error.name or "a library"
        _warn("mlflow-sysmetrics: %s needs %s: %s.", variable, name, install_command(extra))
    return None


def _export(extra: str, address: str, source: Source) -> Export:
    if extra == "prometheus":
        from mlflow_sysmetrics.exports.prometheus import PrometheusPage

        return PrometheusPage(address, source)
    from mlflow_sysmetrics.exports.otlp import OtlpSender

    return OtlpSender(address, source)


def _warn(message: str, *arguments: object) -> None:
    with contextlib.suppress(ThreadUnavailable):
        log_queue.put(partial(_logger.warning, message, *arguments))


def _forget_parent() -> None:
    while _running:
        _running.pop().forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
