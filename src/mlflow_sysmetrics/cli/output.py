"""What all commands print: lines of at most 80 columns, tables, JSON, counts and ages."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from unicodedata import category, east_asian_width

import click

CLOSED = 141  #: exit code of a command whose output was closed; what shells show for SIGPIPE
_MOST_COLUMNS = 80  # a longer line is hard to read, also in a wide terminal
_FEWEST_COLUMNS = 40
_FEWEST_LAST = 16  # columns of the last column of a table before lines become longer than the terminal
_GAP = "  "
_MILLISECONDS = 1000
# The next unit starts at two of it: "90 s" is more precise than "2 min", "2 h" shorter than "120 min".
_UNITS = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
_WIDE = frozenset("WF")  # wide and full width, of Unicode's East Asian widths
_WITHOUT_COLUMN = frozenset(("Mn", "Me", "Cf"))  # accents, enclosing marks, invisible characters
_FILLER = "\ue000"  # of private use: for the second column of a wide character
_NUMBER = re.compile(rf"-|[\d,]+( ({'|'.join(name for _, _, name in _UNITS)}))?")


def columns() -> int:
    """Returns how wide a printed line may be: 80, or less in a narrow terminal."""
    return max(min(shutil.get_terminal_size().columns, _MOST_COLUMNS), _FEWEST_COLUMNS)


def say(text: str, *, err: bool = False) -> None:
    """Prints a text as it is, except for what the output cannot encode and for control characters.

    Args:
        text: one or more lines.
        err: print it to the standard error.
    """
    _echo(_safe(text, err=err), err=err)


def say_wrapped(text: str, *, err: bool = False) -> None:
    """Prints a sentence, wrapped at words; further lines are indented."""
    say(wrapped("", text, indent=_GAP), err=err)


def complain(text: str) -> None:
    """Prints an error to the standard error; its first line is wrapped, further ones may be of a log."""
    first, _, others = text.partition("\n")
    say(wrapped("Error: ", first, indent=_GAP) + (f"\n{others}" if others else ""), err=True)


def say_progress(text: str) -> None:
    """Prints what is going on to the standard error, if somebody watches it there."""
    if sys.stderr.isatty():
        say_wrapped(text, err=True)


def wrapped(head: str, text: str, *, indent: str | None = None) -> str:
    """Returns a head and its text in lines that fit the terminal; paths and URIs are not broken.

    Args:
        head: the beginning of the first line.
        text: what follows.
        indent: the beginning of the other lines; by default as wide as the head.
    """
    filled = textwrap.fill(
        _filled_up(text),
        width=columns(),
        initial_indent=_filled_up(head),
        subsequent_indent=" " * columns_of(head) if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(_FILLER, "") or head.rstrip()


def columns_of(text: str) -> int:
    """Returns how many columns of a terminal a line takes: a Chinese character two, an accent none."""
    if text.isascii():
        return len(text)
    return sum(1 + (east_asian_width(one) in _WIDE) for one in text if category(one) not in _WITHOUT_COLUMN)


def left_aligned(text: str, width: int) -> str:
    """Returns a line filled up with spaces to a number of columns."""
    return text + " " * (width - columns_of(text))


def cut(text: str, most: int) -> str:
    """Returns a text of at most a number of columns; "..." takes the place of what is left out."""
    if columns_of(text) <= most:
        return text
    kept = _filled_up(text)[: most - len("...")].replace(_FILLER, "")
    return f"{kept if columns_of(kept) <= most - len('...') else kept[:-1]}..."


def _filled_up(text: str) -> str:
    """Returns a text as long as the columns it takes, for functions that count characters."""
    if text.isascii():
        return text
    return "".join(one + _FILLER * (east_asian_width(one) in _WIDE) for one in text)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Prints rows under their heads; columns are as wide as their widest cell, numbers are right-aligned.

    Args:
        heads: column names.
        rows: cells, as many in each row as there are heads; the last one is wrapped if it does not fit.
        indent: the beginning of each line.
    """
    table = [
        tuple(heads),
        *(tuple(_safe(cell, err=False).replace("\n", "\\n") for cell in row) for row in rows),
    ]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    right = [all(map(_NUMBER.fullmatch, column)) for column in zip(*table[1:], strict=True)] or [False] * len(
        heads
    )
    right[0] = False  # a name, even if it is made of digits
    left = indent + _GAP.join(" " * width for width in (*widths[:-1], 0))
    for row in table:
        cells = [
            cell.rjust(width) if numbers else left_aligned(cell, width)
            for cell, width, numbers in zip(row, widths, right, strict=True)
        ]
        line = (indent + _GAP.join(cells)).rstrip()
        if columns_of(line) > columns() - _FEWEST_LAST >= len(left):
            line = wrapped(indent + _GAP.join((*cells[:-1], "")), row[-1], indent=left)
        _echo(line)


def print_json(document: object) -> None:
    """Prints one JSON document; in ASCII if the output cannot encode all of it."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    _echo(text if can_show(text) else json.dumps(document, indent=2))


def can_show(text: str) -> bool:
    """Returns whether the standard output can encode a text."""
    try:
        text.encode(_encoding(err=False))
    except UnicodeEncodeError:
        return False
    return True


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


def closed(stream: TextIO) -> click.exceptions.Exit:
    """Returns what ends a command whose output was closed by what read it, as `| head -1` does."""
    with suppress(OSError, ValueError), Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())  # the interpreter flushes it once more when it exits
    return click.exceptions.Exit(CLOSED)


def _echo(text: str, *, err: bool = False) -> None:
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        raise closed(sys.stderr if err else sys.stdout) from None


def _safe(text: str, *, err: bool) -> str:
    """Returns a text that can be printed: another user's journal must not control a terminal."""
    shown = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
    encoding = _encoding(err=err)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _encoding(*, err: bool) -> str:
    return getattr(sys.stderr if err else sys.stdout, "encoding", None) or "ascii"
