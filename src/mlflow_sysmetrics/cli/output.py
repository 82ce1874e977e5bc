"""What all commands print: tables, JSON, counts and ages."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click

_GAP = "  "
_MILLISECONDS = 1000
# The next unit starts at two of it: "90 s" is more precise than "2 min", "2 h" shorter than "120 min".
_UNITS = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under their heads; columns are as wide as their widest cell, numbers are right-aligned.

    Args:
        heads: column names.
        rows: cells, as many in each row as there are heads.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [all(cell.replace(",", "").isdigit() or cell == "-" for cell in column[1:]) for column in columns]
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(row, widths, right, strict=True)
        ]
        click.echo(_GAP.join(cells).rstrip())


def printable(text: str) -> str:
    """Returns a text without control characters: another user's journal must not control a terminal."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def print_json(document: object) -> None:
    """Prints one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: "1 point", "1,200 points"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def length_of_time(seconds: float) -> str:
    """Returns a length of time in its largest fitting unit: "90 s", "12 min", "5 h", "3 d"."""
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{seconds // unit:.0f} {name}"
    return "0 s"  # the wall clock was set back


def age_seconds(timestamp: int) -> float:
    """Returns the age in seconds of a timestamp in milliseconds since 1970."""
    return time.time() - timestamp / _MILLISECONDS


def age_of(timestamp: int | None) -> str:
    """Returns the age of a timestamp in milliseconds since 1970, for people; "-" for None."""
    return "-" if timestamp is None else length_of_time(age_seconds(timestamp))
