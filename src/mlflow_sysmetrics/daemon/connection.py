"""How one tracking server is reached, and what it is called where people read of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mlflow_sysmetrics.daemon.outbox import Outbox
from mlflow_sysmetrics.daemon.points import Point
from mlflow_sysmetrics.daemon.sink import Sink
from mlflow_sysmetrics.errors import DeliveryError, JournalUnavailable, ServerUnreachable
from mlflow_sysmetrics.tracking_uris import redacted, without_secrets

_MILLISECONDS = 1000


class Connection:
    """Makes the sink of a tracking server when it is first needed, and puts batches into it.

    Args:
        tracking_uri: the server.
        open_sink: makes the sink; called again after each failure to make one.
    """

    def __init__(self, tracking_uri: str, open_sink: Callable[[str], Sink]) -> None:
        self._tracking_uri = tracking_uri
        self._open_sink = open_sink
        self._sink: Sink | None = None

    def __str__(self) -> str:
        """Returns the server's name, without secrets."""
        return f"Tracking server {redacted(self._tracking_uri)}"

    def reason(self, error: Exception) -> str:
        """Returns what an attempt failed of, without secrets."""
        kind = "" if isinstance(error, (DeliveryError, JournalUnavailable)) else f"{type(error).__name__}: "
        return without_secrets(f"{kind}{error}", self._tracking_uri)

    def send(self, outbox: Outbox, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Delivers points and tags of one run. Takes as long as the server does.

        Raises:
            DeliveryError: the server did not take them, or there is no client for it.
        """
        if not points and not tags:
            return  # all of it was thinned on disk
        if self._sink is None:
            try:
                self._sink = self._open_sink(self._tracking_uri)
            except Exception as error:
                # A store is made by MLflow or by a plugin: it may raise anything, and may do better later.
                raise ServerUnreachable(f"no client for {redacted(self._tracking_uri)}: {error}") from error
        by_time = any(point.step is None for point in points)
        if by_time and outbox.started_at is None:
            outbox.started_at = self._sink.started_at(outbox.run_id)
        started_at = outbox.started_at or 0
        steps = [
            max(point.timestamp - started_at, 0) // _MILLISECONDS if point.step is None else point.step
            for point in points
        ]
        self._sink.send(outbox.run_id, points, steps, tags)
