"""Text in cells of a terminal: safe to print, cut and padded to a width. Needs no library."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

_WIDE = frozenset("WF")
_CUT = "~"  # in every encoding


class Span(NamedTuple):
    """A piece of a line: its text, and what it is ("head", "good", "bad", "dim", "curve", "chosen" or "")."""

    text: str
    style: str = ""


Row = list[Span]  #: one line of the screen


def inert(text: str) -> str:
    """Returns a text of others so that it cannot control a terminal.

    Control characters, marks that change the direction of writing and line ends are shown as escapes;
    characters without a width, which a name could stack by the hundred, are left out.
    """
    return "".join(_shown(one) for one in text)


def _shown(one: str) -> str:
    if one.isprintable():
        return one if _cells(one) else ""
    return repr(one)[1:-1]


def _cells(one: str) -> int:
    if unicodedata.east_asian_width(one) in _WIDE:
        return 2
    return 0 if unicodedata.category(one) in {"Mn", "Me", "Cf", "Cc"} else 1


def width(text: str) -> int:
    """Returns how many cells a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def fitted(text: str, cells: int, *, right: bool = False) -> str:
    """Returns a text cut or padded to exactly so many cells.

    Args:
        text: as from `inert`.
        cells: at least 1.
        right: pads on the left, for numbers.
    """
    left = cells - width(text)
    if left >= 0:
        return " " * left + text if right else text + " " * left
    kept, used = [], 0
    for one in text:
        if used + _cells(one) > cells - len(_CUT):
            break
        kept.append(one)
        used += _cells(one)
    return "".join(kept) + _CUT + " " * (cells - used - len(_CUT))


def wrapped(text: str, cells: int, most: int) -> list[str]:
    """Returns a text in at most so many lines, broken at spaces; the last one is cut if there is more."""
    lines: list[str] = []
    line = ""
    words = text.split()
    for index, word in enumerate(words):
        joined = f"{line} {word}" if line else word
        if width(joined) <= cells or not line:
            line = joined
            continue
        if len(lines) == most - 1:
            line = " ".join([line, *words[index:]])
            break
        lines.append(line)
        line = word
    return [fitted(one, cells).rstrip() for one in [*lines, line]]


def row(spans: Iterable[Span | str], cells: int) -> Row:
    """Returns spans cut or padded to exactly so many cells."""
    found: list[Span] = []
    left = cells
    for one in spans:
        span = one if isinstance(one, Span) else Span(one)
        if left <= 0:
            break
        text = span.text if width(span.text) <= left else fitted(span.text, left)
        found.append(Span(text, span.style))
        left -= width(text)
    if left > 0:
        found.append(Span(" " * left))
    return found
