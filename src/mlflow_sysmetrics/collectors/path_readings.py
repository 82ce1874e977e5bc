"""Readings of the watched paths, of which one on a network filesystem whose server is gone never ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.runtime.background_reading import BackgroundReading

Value = TypeVar("Value")

# Filesystems are mounted by hand and by automounters: soon enough to be seen, seldom enough to cost nothing.
LOOK_SECONDS = 60.0
# What answers at all does so within this, an automounter too: a tick waits for it once, after the start.
_FIRST_ANSWER_SECONDS = 0.25
# A local filesystem takes 0.1 ms, a server nearby 1 ms: so long a tick waits for what is new.
_NEXT_ANSWER_SECONDS = 5e-3
# Until then the last answer stands.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answers(Generic[Value]):
    """What the paths told.

    Attributes:
        values: of the paths that answer.
        silent: of the others: why there is nothing.
    """

    values: dict[str, Value]
    silent: dict[str, str]


class PathReadings(Generic[Value]):
    """Reads each path in a thread of its own.

    Args:
        purpose: what the readings are for, as part of the threads' names.
        paths: absolute paths.
        read: reads one; raises OSError.
    """

    def __init__(self, purpose: str, paths: Iterable[str], read: Callable[[str], Value]) -> None:
        self._besides = {
            path: BackgroundReading(f"{purpose} {path}", partial(read, path), rest_seconds=0)
            for path in paths
        }

    def first(self) -> Answers[Value]:
        """Reads all paths, and waits a quarter of a second for those that do not answer at once."""
        return self._read(_FIRST_ANSWER_SECONDS)

    def next(self) -> Answers[Value]:
        """Reads all paths anew; a path that does not answer at once tells what it told before."""
        return self._read(_NEXT_ANSWER_SECONDS)

    def _read(self, within: float) -> Answers[Value]:
        answers: Answers[Value] = Answers({}, {})
        until = time.monotonic() + within
        for beside in self._besides.values():
            beside.ask()
        for path, beside in self._besides.items():
            try:
                reading = beside.answer(within=max(until - time.monotonic(), 0.0))
            except (OSError, Unavailable) as error:
                answers.silent[path] = f"{path}: {getattr(error, 'strerror', None) or error}"
            else:
                if reading is None or beside.waiting_seconds > _PATIENCE_SECONDS:
                    answers.silent[path] = f"{path} does not answer"
                else:
                    answers.values[path] = reading.value
        return answers
