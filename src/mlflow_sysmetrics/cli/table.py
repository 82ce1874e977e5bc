"""Columns of text, and JSON for programs: how every command prints what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

_GAP = "  "


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under their heads, each column as wide as its widest cell; numbers stand at the right.

    Args:
        heads: names of the columns.
        rows: their cells, as many in each row as there are heads.
    """
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [all(cell.replace(",", "").isdigit() or cell == "-" for cell in column[1:]) for column in columns]
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(row, widths, right, strict=True)
        ]
        click.echo(_GAP.join(cells).rstrip())


def print_json(document: object) -> None:
    """Prints one JSON document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: "1 point", "1,200 points"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
