"""Where the readings come from: the sampler of this process, once its daemon has started it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from mlflow_sysmetrics.runtime.clock import Clock
from mlflow_sysmetrics.samples import Sample
from mlflow_sysmetrics.settings import Settings

if TYPE_CHECKING:
    from mlflow_sysmetrics.exports.readings import Snapshot

_PUBLISHES = "mlflow_sysmetrics.exports.publish"  # by name, because that module imports this one

Ticked = tuple[float, Sequence[Sample]]


class Ticking(Protocol):
    """What is needed of the sampler.

    Attributes:
        last: monotonic time and samples of the last tick, and of the one that what it did not read is from.
    """

    last: tuple[Ticked, Ticked]

    @property
    def readings(self) -> int:
        """Number of readings since the sampler was last idle; 0 if it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """Shows the last tick of a sampler.

    Attributes:
        sampler: the sampler.
        clock: its time source.
        run_ids: returns the ids of the runs that get its readings.
    """

    sampler: Ticking
    clock: Clock
    run_ids: Callable[[], Sequence[str]]

    def snapshot(self) -> Snapshot:
        """Returns the readings of the last tick; empty if nothing is sampled."""
        from mlflow_sysmetrics.exports.readings import Snapshot, readings_of  # most programs never ask

        if not self.sampler.readings:
            return Snapshot({})
        return Snapshot(readings_of(self.clock.monotonic(), *self.sampler.last))


_source: Source | None = None


def show(source: Source) -> None:
    """Makes `snapshot` return the readings of a source."""
    global _source  # noqa: PLW0603 - one per process, as its daemon
    _source = source


def prepare(settings: Settings, source: Source) -> Callable[[], None]:
    """Returns what shows the last tick from then on, to the program and to those that the settings name.

    The libraries for that are imported now: what is returned may be called under a lock.
    """
    if settings.prometheus is None and settings.otlp is None:
        return partial(show, source)
    publisher = import_module(_PUBLISHES).Publisher(settings, source)

    def start() -> None:
        show(source)
        publisher.start()

    return start


def snapshot() -> Snapshot:
    """Returns the last reading of this machine: a frozen mapping of keys, without ``system/``, to readings.

    Reads nothing and waits for nothing: it is the tick that the attached runs get. Empty if nothing is
    sampled, as before the first run, after the last one, and in a forked child. Can be called in any thread.
    """
    from mlflow_sysmetrics.exports.readings import Snapshot  # as above

    source = _source
    return Snapshot({}) if source is None else source.snapshot()


def _forget_parent() -> None:
    global _source  # noqa: PLW0603
    _source = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_parent)
