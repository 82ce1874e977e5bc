"""Starts what shows the last tick to others: a page for Prometheus, a sender for OpenTelemetry.

Both are off by default. Neither reads a source, and neither can break or delay a training: what is wrong is
one warning.
"""

from __future__ import annotations

import os
from typing import Protocol

from mlflow_sysmetrics.errors import ThreadUnavailable
from mlflow_sysmetrics.exports.last_tick import Source, show
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.distribution import install_command
from mlflow_sysmetrics.settings import OTLP, PROMETHEUS, Settings

_logger = Log()


class Export(Protocol):
    """One of them, with a thread of its own."""

    def start(self) -> None:
        """Starts its thread."""

    def forget_after_fork(self) -> None:
        """Closes in a forked child what belongs to the parent."""


_running: list[Export] = []


def start(settings: Settings, source: Source) -> None:
    """Shows the last tick of a source to the program, and to those that the settings name.

    Args:
        settings: those of the first attach of the process.
        source: the sampler.
    """
    show(source)
    if settings.prometheus is not None:
        _start(PROMETHEUS, "prometheus", settings.prometheus, source)
    if settings.otlp is not None:
        _start(OTLP, "otlp", settings.otlp, source)


def _start(variable: str, extra: str, address: str, source: Source) -> None:
    try:
        export = _made(extra, address, source)
        export.start()
    except ImportError as error:
        _logger.warning("mlflow-sysmetrics: %s needs %s: %s.", variable, error.name, install_command(extra))
    except ThreadUnavailable as error:
        _logger.warning("mlflow-sysmetrics: %s has no effect: %s.", variable, error)
    else:
        _running.append(export)


def _made(extra: str, address: str, source: Source) -> Export:
    if extra == "prometheus":
        from mlflow_sysmetrics.exports.prometheus import PrometheusPage

        return PrometheusPage(address, source)
    from mlflow_sysmetrics.exports.otlp import OtlpSender

    return OtlpSender(address, source)


def _forget_parent() -> None:
    while _running:
        _running.pop().forget_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
