"""What stands in a pickled or deep-copied object for what only the process of the original has.

A model may hold a recorder, and be copied for its best weights or sent to a worker. The copy must work, and
must not write to the run: the original does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mlflow_sysmetrics.daemon import Point

_logger = logging.getLogger("mlflow_sysmetrics")
_warned: set[str] = set()


def _warn_once(kind: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        _logger.warning(
            "mlflow-sysmetrics: a copy of a %s records nothing; create a %s where it is used. "
            "(It was unpickled, deep-copied or sent to another process.)",
            kind,
            kind,
        )


class DetachedWriter:
    """Takes the place of a `PointWriter`; drops points, with one warning per process.

    Args:
        kind: the class of the object that holds it.
    """

    def __init__(self, kind: str) -> None:
        self.gather: Callable[[], None] | None = None
        self._kind = kind

    def write(self, points: Sequence[Point]) -> None:
        """Drops the points."""
        if points:
            _warn_once(self._kind)

    def release(self) -> None:
        """Does nothing."""

    def close(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as PointWriter's
        """Returns True: nothing waits."""
        return True


class DetachedWatch:
    """Takes the place of a `Watch`; has no reading, with one warning per process.

    Args:
        kind: the class of the object that holds it.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def read(self) -> dict[str, float]:
        """Returns no values."""
        _warn_once(self._kind)
        return {}

    def close(self) -> None:
        """Does nothing."""
