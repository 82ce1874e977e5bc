"""How much runs of what takes long by nature: a part of it, or all under `nox -s slow`; see the marker `slow`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

IN_FULL = os.environ.get("CHAOS_FULL") == "1"


def part(items: Iterable[T], *, every: int, start: int) -> list[T]:
    """Returns one of so many items, or all of them under `nox -s slow`.

    Args:
        items: cases that mostly go the same ways through the code.
        every: how many cases there are for one that runs.
        start: chooses which; where it differs from one test to the next, each case runs in some of them.
    """
    return [*items] if IN_FULL else [*items][start % every :: every]
