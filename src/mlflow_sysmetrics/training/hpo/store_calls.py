"""Calls to the tracking server that a study does not depend on."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils import validation

from mlflow_sysmetrics.mlflow_api.outcomes import fault_of_error
from mlflow_sysmetrics.mlflow_api.tracking_uris import redacted
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout, bounded

# FOLDED run_names: Names and values in the form that every MLflow takes.

_ILLEGAL = re.compile(r"[^\w.\- /]")
_LONGEST_KEY = int(getattr(validation, "MAX_ENTITY_KEY_LENGTH", 250))
_LONGEST_VALUE = int(getattr(validation, "MAX_PARAM_VAL_LENGTH", 500))
_LONGEST_TAG = int(getattr(validation, "MAX_TAG_VAL_LENGTH", 5000))


def trial_run_name(number: int) -> str:
    """Returns the name of a trial's run, which counts from 1 where Optuna's numbers count from 0."""
    return f"trial_{number + 1:04d}"


def key_of(prefix: str, name: str) -> str:
    """Returns a key of MLflow for a name of the user's; what MLflow would refuse becomes an underscore."""
    parts = [part for part in _ILLEGAL.sub("_", name).split("/") if part.strip(".")]
    return f"{prefix}/{'/'.join(parts) or '_'}"[:_LONGEST_KEY].rstrip("/")


def params_of(prefix: str, values: Mapping[str, object]) -> dict[str, str]:
    """Returns parameters as MLflow takes them, under distinct keys; what is too long ends in an ellipsis."""
    params: dict[str, str] = {}
    for name, value in values.items():
        key, count = key_of(prefix, name), 1
        while key in params:
            count += 1
            ending = f"_{count}"
            key = key_of(prefix, name)[: _LONGEST_KEY - len(ending)] + ending
        params[key] = shortened(str(value), _LONGEST_VALUE)
    return params


def tag_value(value: object) -> str:
    """Returns the value of a tag as MLflow takes it."""
    return shortened(str(value), _LONGEST_TAG)


def shortened(text: str, longest: int) -> str:
    """Returns a text, cut where it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


# FOLDED run_writer: Writes into runs in pieces that MLflow takes, by id: no run needs to be active for that.

# MLflow's limits for one request, in every version.
_METRICS_AT_ONCE = 1000
_PAIRS_AT_ONCE = 100


def write(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Sequence[RunTag] = (),
) -> None:
    """Writes metrics, parameters and tags of a run.

    Raises:
        Exception: what MLflow raises.
    """
    # A request has at most a thousand of all three together.
    metrics_at_once = _METRICS_AT_ONCE - 2 * _PAIRS_AT_ONCE
    pieces = max(
        -(-len(metrics) // metrics_at_once),
        -(-len(params) // _PAIRS_AT_ONCE),
        -(-len(tags) // _PAIRS_AT_ONCE),
    )
    for piece in range(pieces):
        client.log_batch(
            run_id,
            metrics=metrics[piece * metrics_at_once : (piece + 1) * metrics_at_once],
            params=params[piece * _PAIRS_AT_ONCE : (piece + 1) * _PAIRS_AT_ONCE],
            tags=tags[piece * _PAIRS_AT_ONCE : (piece + 1) * _PAIRS_AT_ONCE],
        )


# A server that is started again is back within that; MLflow's own retries go on for four minutes, for each
# request, and a trial makes a dozen.
_PATIENCE_SECONDS = 60.0
# While it is known to be away, each trial only looks whether it is back.
_GLANCE_SECONDS = 3.0

T = TypeVar("T")
_log = logging.getLogger("mlflow_sysmetrics")


class NotRecorded(Exception):
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
        except CallTimeout:
            if not answer.given_up():
                return answer.value  # it came at the last moment
            self._silent = True
            self._warn(f"no answer within {seconds:g} s")
            raise NotRecorded from None
        except (
            Exception
        ) as error:  # MLflow's, its store's, a plugin's of either: whatever it is, the study goes on
            self._warn(fault_of_error(error, self._uri).reason)
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
