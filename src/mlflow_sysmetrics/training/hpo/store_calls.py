"""Calls to the tracking server that a study does not depend on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mlflow_sysmetrics.root_cause import root_cause
from mlflow_sysmetrics.tracking.bounded import TookTooLong, bounded
from mlflow_sysmetrics.tracking_uris import redacted, without_secrets

# A server that is started again is back within that; MLflow's own retries go on for four minutes, for each
# request, and a trial makes a dozen.
_PATIENCE_SECONDS = 60.0
# While it is known to be away, each trial only looks whether it is back.
_GLANCE_SECONDS = 3.0

T = TypeVar("T")
_log = logging.getLogger("mlflow_sysmetrics")


class NotRecorded(Exception):  # noqa: N818 - what happened; it has been warned of, and is made good later
    """The tracking server has not taken something."""


class StoreCalls:
    """Makes calls to one tracking server, waits for them only so long, and warns once that they fail.

    A result of a trial is worth more than its run: what cannot be written now is written when the study ends,
    or is resumed.

    Args:
        tracking_uri: the server, for messages.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._lock = threading.Lock()
        self._silent = False
        self._warned = False

    @property
    def silent(self) -> bool:
        """Whether the server has not answered when it was last asked."""
        return self._silent

    def make(
        self, call: Callable[[], T], *, undo: Callable[[T], object] | None = None, here: bool = False
    ) -> T:
        """Returns what a call returns.

        Args:
            call: what to do.
            undo: called with what the call returns when nobody waits for it any more: MLflow goes on trying
                for minutes, and what it makes then has been made anew.
            here: make the call in this thread, and so wait for it as long as it takes.

        Raises:
            NotRecorded: it raised something, or took too long.
        """
        answer = _Answer(call, undo)
        seconds = _GLANCE_SECONDS if self._silent else _PATIENCE_SECONDS
        try:
            answer.fetch() if here else bounded(answer.fetch, seconds)
        except TookTooLong:
            if not answer.given_up():
                return answer.value  # it came at the last moment
            self._silent = True
            self._warn(f"no answer within {seconds:g} s")
            raise NotRecorded from None
        except (
            Exception
        ) as error:  # MLflow's, its store's, a plugin's of either: whatever it is, the study goes on
            self._warn(_reason(error, self._uri))
            raise NotRecorded from error
        except BaseException:  # Ctrl-C
            answer.given_up()
            raise
        self._silent = False
        return answer.value

    def _warn(self, reason: str) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            _log.warning(
                "mlflow-sysmetrics: %s does not take what the study has to say (%s). The study goes on, and "
                "what is missing is written at its end.",
                redacted(self._uri),
                reason,
            )


class _Answer(Generic[T]):
    """What a call returns, to whoever is still there."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._given_up = False
        self._found: list[T] = []

    @property
    def value(self) -> T:
        return self._found[0]

    def fetch(self) -> None:
        found = self._call()
        with self._lock:
            if not self._given_up:
                self._found.append(found)
                return
        if self._undo is not None:
            self._undo(found)

    def given_up(self) -> bool:
        """Gives up on the answer, and returns True; False where it is there."""
        with self._lock:
            self._given_up = not self._found
            return self._given_up


def _reason(error: BaseException, tracking_uri: str) -> str:
    """Returns what MLflow says, or what the network said beneath it."""
    root = root_cause(error)
    said = root if isinstance(root, OSError) else error
    lines = str(said).strip().splitlines() or [type(said).__name__]
    return without_secrets(lines[0], tracking_uri)
