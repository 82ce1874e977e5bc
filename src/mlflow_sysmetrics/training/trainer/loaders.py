"""Loaders: how many batches they have, and passes over them that end where the loader ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Passes:
    """Iterates a loader pass after pass: each ends with StopIteration, and the next call begins another.

    Ignite counts batches: told a length, it cuts or prolongs epochs of another one, as those of an iterable
    dataset or of batches by size may be. Told none, it ends an epoch where the iterator does.

    Args:
        loader: is iterated once per pass.

    Attributes:
        batches: how many batches the pass has given so far.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.batches = 0
        self._loader = loader
        self._running: Iterator[Any] | None = None

    def __iter__(self) -> Passes:
        self._running = None  # Ignite asks for it again where an epoch was terminated: the next begins anew
        return self

    def __next__(self) -> Any:
        if self._running is None:
            self.batches = 0
            self._running = iter(self._loader)
        try:
            batch = next(self._running)
        except StopIteration:
            self._running = None  # its workers end now, as those of a loop would
            raise
        self.batches += 1
        return batch


def length(loader: object) -> int | None:
    """Returns how many batches a loader has; None where it does not know."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:  # no length, or that of an iterable dataset, which has none
        return None


def announce_epoch(loader: object, epoch: int) -> None:
    """Tells a distributed sampler which epoch begins, counted from 0, so that it shuffles anew."""
    for name in ("sampler", "batch_sampler"):
        set_epoch = getattr(getattr(loader, name, None), "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
