"""What the daemon reports about itself: a snapshot at any time, a summary in the log at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from mlflow_sysmetrics.daemon.sampling.sampler import SAMPLED
from mlflow_sysmetrics.errors import shortened
from mlflow_sysmetrics.log import Log
from mlflow_sysmetrics.runtime.loops import log_queue
from mlflow_sysmetrics.settings import Settings

_LONGEST_TAG = 250
# What our threads have logged comes first, unless a log handler blocks.
_LOGGED_WITHIN_SECONDS = 0.25

_logger = Log()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Status:
    """Snapshot of this process's daemon; prints as a few lines, in a notebook as a table.

    Attributes:
        running: whether the machine is sampled: the sampling thread was started and has not died.
        attached: ids of the attached runs.
        ticks: passes over the collectors so far.
        points_delivered: points that tracking servers accepted.
        points_pending: points that wait for delivery. Readings of an open window, and points of a straight
            line that are held back, are not among them.
        points_unsaved: how many of them are in memory only.
        points_dropped: points that were given up.
        last_error: which of its threads died or failed, or why the last attempt to deliver failed; None if
            all threads work and all servers answer.
        collectors: health of each collector by its family and part, such as "cpu (throttling)": "ok", "ok,
            but ..." with what its source lacks on this host, or the reason why it yields nothing; "hanging:
            ..." if its source does not answer.
        journal: the file that keeps points until their server has them; None if there is none yet.
        journal_bytes: its size.
        journal_failed: why points are kept in memory only; None if they are on disk.
    """

    running: bool = False
    attached: tuple[str, ...] = ()
    ticks: int = 0
    points_delivered: int = 0
    points_pending: int = 0
    points_unsaved: int = 0
    points_dropped: int = 0
    last_error: str | None = None
    collectors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    journal: str | None = None
    journal_bytes: int = 0
    journal_failed: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Makes it picklable: a read-only view of a dict is not."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return _status, ({**values, "collectors": dict(self.collectors)},)

    def __repr__(self) -> str:
        return "\n  ".join(
            [f"<mlflow-sysmetrics: {self._state()}>", *(f"{name:<10} {text}" for name, text in self._rows())]
        )

    def _repr_html_(self) -> str:
        """Returns a table for a notebook."""
        from html import escape

        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._rows()
        )
        return f"<table><caption>mlflow-sysmetrics: {escape(self._state())}</caption>{rows}</table>"

    def _state(self) -> str:
        count = len(self.attached)
        sampling = "sampling" if self.running else "not sampling"
        return f"{sampling}, {count} run{'' if count == 1 else 's'} attached"

    def _rows(self) -> Iterator[tuple[str, str]]:
        """Yields what is worth a line."""
        yield "ticks", f"{self.ticks:,}"
        unsaved = f" ({self.points_unsaved:,} in memory only)" if self.points_unsaved else ""
        waiting = f"{self.points_pending:,} waiting{unsaved}"
        yield "points", f"{self.points_delivered:,} delivered, {waiting}, {self.points_dropped:,} dropped"
        if self.collectors:
            absent = sum(health.startswith("unavailable") for health in self.collectors.values())
            read = sum(health.startswith("ok") for health in self.collectors.values())
            yield "sources", f"{read} read, {absent} not available here; .collectors says why"
        for name, health in self.collectors.items():
            if not health.startswith(("ok", "unavailable")):
                yield "source", f"{name}: {health}"
        if self.journal is not None:
            yield "journal", f"{self.journal}, {self.journal_bytes:,} bytes"
        if self.journal_failed is not None:
            yield "no journal", self.journal_failed
        if self.last_error is not None:
            yield "last error", self.last_error


def _status(values: dict[str, Any]) -> Status:
    return Status(**{**values, "collectors": MappingProxyType(values["collectors"])})


def metrics_tag(hanging: Sequence[str]) -> str:
    """Returns the value of `METRICS_TAG` for a run that is sampled.

    Args:
        hanging: sources that do not answer, as `Probe.name`.
    """
    if not hanging:
        return SAMPLED
    return shortened(f"{SAMPLED}, but no answer from {', '.join(sorted(hanging))}", _LONGEST_TAG)


def log_start(settings: Settings, collectors: Sequence[str]) -> None:
    """Logs what is sampled, at the first attach of the process."""
    _logger.info(
        "Sampling started: a tick every %g s, a point every %g s%s, from %s.",
        settings.sampling_interval,
        settings.window_seconds,
        " at first" if settings.adaptive else "",
        ", ".join(collectors) or "no collector",
    )


def log_summary(status: Status, flush_timeout: float) -> None:
    """Logs how much was sampled and what could not be delivered, at the end of the process.

    Args:
        status: the last status of the daemon.
        flush_timeout: how many seconds the process waited for delivery.
    """
    log_queue.wait(_LOGGED_WITHIN_SECONDS)
    # A log stream may be closed by now, and logging would print a traceback about that.
    raises, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        _logger.info(
            "Sampling ended after %d ticks: %d points delivered, %d dropped.",
            status.ticks,
            status.points_delivered,
            status.points_dropped,
        )
        _log_undelivered(status, flush_timeout)
    finally:
        logging.raiseExceptions = raises


def _log_undelivered(status: Status, flush_timeout: float) -> None:
    waited = f"no answer within {flush_timeout:g} s"
    reason = status.last_error or (waited if flush_timeout else "a flush timeout of 0 does not wait")
    saved = status.points_pending - status.points_unsaved
    if saved:
        _logger.warning(
            "mlflow-sysmetrics: %d points wait in %s; they are sent by the next run on this machine "
            "or by `mlflow-sysmetrics sync`: %s.",
            saved,
            status.journal,
            reason,
        )
    if status.points_unsaved:
        _logger.warning(
            "mlflow-sysmetrics: %d points could not be delivered in time and are lost: %s.",
            status.points_unsaved,
            reason,
        )
