"""One attached run, as the sampler sees it: its keys, its counters' zero, its window, its outbox."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mlflow_sysmetrics.daemon.points import Outbox, Point
from mlflow_sysmetrics.daemon.sender import Sender
from mlflow_sysmetrics.daemon.window import DECIMALS, Value, Window
from mlflow_sysmetrics.samples import Kind
from mlflow_sysmetrics.settings import Settings


class Feed:
    """Turns windows into points of one run.

    Attributes:
        key: tracking URI and run id, by which attaching is idempotent.
        settings: those in force when the run was attached.
        sender: the sender of the run's tracking server.
        outbox: what the run is owed.
        window: the ticks since its last point; the sampler's alone.
        ended: set once its last point is in the outbox.
        holders: how many attachments hold it.
    """

    def __init__(self, key: tuple[str, str], settings: Settings, sender: Sender, outbox: Outbox) -> None:
        self.key = key
        self.settings = settings
        self.sender = sender
        self.outbox = outbox
        self.window: Window | None = None
        self.ended = threading.Event()
        self.holders = 0
        self._prefix = f"system/{settings.node_id}/" if settings.node_id else "system/"
        self._zeros: dict[str, float] = {}

    def emit(self, values: Iterable[Value], timestamp: int) -> None:
        """Puts one point per value into the outbox; counters count from the run's first point."""
        prefix = self._prefix
        points = []
        for key, kind, value in values:
            if kind is Kind.COUNTER:
                value -= self._zeros.setdefault(key, value)  # noqa: PLW2901 - the same quantity from another zero
            points.append(Point(prefix + key, round(value, DECIMALS), timestamp))
        if points:
            self.sender.append(self.outbox, points)
