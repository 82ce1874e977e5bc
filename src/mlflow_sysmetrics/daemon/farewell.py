"""What a program is told at its end: how much was sampled, and what is not delivered yet."""

from __future__ import annotations

import logging

from mlflow_sysmetrics.daemon.state import Status

_logger = logging.getLogger("mlflow_sysmetrics")


def tell_the_end(status: Status, flush_timeout: float) -> None:
    """Logs how the sampling ended.

    Args:
        status: what the daemon says of itself.
        flush_timeout: how many seconds delivery was waited for.
    """
    # A log stream may be closed by now, and logging would print a traceback about that.
    raises, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        _logger.info(
            "Sampling ended after %d ticks: %d points delivered, %d dropped.",
            status.ticks,
            status.points_delivered,
            status.points_dropped,
        )
        _tell_what_is_owed(status, flush_timeout)
    finally:
        logging.raiseExceptions = raises


def _tell_what_is_owed(status: Status, flush_timeout: float) -> None:
    waited = f"no answer within {flush_timeout:g} s"
    why = status.last_error or (waited if flush_timeout else "a flush timeout of 0 does not wait")
    saved = status.points_pending - status.points_unsaved
    if saved:
        _logger.warning(
            "mlflow-sysmetrics: %d points wait in %s; they are sent by the next run on this machine "
            "or by `mlflow-sysmetrics sync`: %s.",
            saved,
            status.journal,
            why,
        )
    if status.points_unsaved:
        _logger.warning(
            "mlflow-sysmetrics: %d points could not be delivered in time and are lost: %s.",
            status.points_unsaved,
            why,
        )
