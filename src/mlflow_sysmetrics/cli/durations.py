"""Durations as people write and read them: "90s", "10m", "2h", "1d", "90"; "12 min"."""

from __future__ import annotations

import re

import click

FORMAT = "90s, 10m, 2h, 1d, or plain seconds"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", re.ASCII)
# A unit is left for the next one at two of it: "90 s" says more than "2 min", and "119 min" less than "2 h".
_SPOKEN = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Is the callback of an option: returns the seconds, or ends the command with what would be right."""
    seconds = wait(context, option, value)
    if seconds == 0:
        fault = f"{value!r} is no time at all; write a number over 0, such as 10m"
        raise click.BadParameter(fault, context, option)
    return seconds


def wait(context: click.Context, option: click.Parameter, value: str) -> float:
    """Is the callback of an option that takes 0, too: not to wait."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as "10m", or "600".

    Raises:
        ValueError: it is none; the message names the value and the remedy.
    """
    found = _PATTERN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no duration; write {FORMAT}")
    return float(found[1]) * _SECONDS[found[2]]


def spoken(seconds: float) -> str:
    """Returns a length of time in its largest fitting unit: "90 s", "12 min", "5 h", "3 d"."""
    for least, unit, name in _SPOKEN:
        if seconds >= least:
            return f"{seconds // unit:.0f} {name}"
    return "0 s"  # the wall clock was set back
