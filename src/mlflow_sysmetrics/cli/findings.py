"""Findings of `doctor`, `server doctor` and `check`, printed as marked lines or as JSON."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import click

_COLUMNS = 80
_MARGIN = "  "
_UNMARKED = " "
_USER_AND_PASSWORD = re.compile(r"/[^\s/]*@")  # greedy, since a password may contain a colon


class Mark(Enum):
    """What a finding means, in order of weight; the value is its name in JSON."""

    GOOD = "ok"  #: works as intended
    PLAIN = "plain"  #: a value, neither good nor bad
    ABSENT = "absent"  #: not present or switched off, which is not a fault
    NOTE = "note"  #: works, but there is something to know or to do
    WRONG = "wrong"  #: does not work


_SIGNS = {Mark.GOOD: "✓", Mark.PLAIN: _UNMARKED, Mark.ABSENT: "\N{EN DASH}", Mark.NOTE: "!", Mark.WRONG: "✗"}
_PLAIN_SIGNS = {Mark.GOOD: "+", Mark.PLAIN: _UNMARKED, Mark.ABSENT: "-", Mark.NOTE: "!", Mark.WRONG: "x"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact.

    Attributes:
        name: what was inspected.
        mark: what the fact means.
        text: the fact, in a few words without secrets.
        remedy: what to do; None if there is nothing to do.
        more: further fields for JSON.
    """

    name: str
    mark: Mark
    text: str
    remedy: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """Returns the finding as JSON fields."""
        fixed = {"name": self.name, "state": self.mark.value, "text": self.text, "remedy": self.remedy}
        return {**fixed, **self.more}


@dataclass(frozen=True, slots=True)
class Section:
    """Findings under one heading.

    Attributes:
        key: its name in JSON.
        title: its heading.
        findings: in display order.
    """

    key: str
    title: str
    findings: Sequence[Finding]


def print_section(section: Section) -> None:
    """Prints a heading, and under it one marked line per finding with name, text and remedy."""
    say(section.title)
    width = max((len(finding.name) for finding in section.findings), default=0)
    for finding in section.findings:
        print_finding(finding, width)


def print_finding(finding: Finding, width: int) -> None:
    """Prints one finding within 80 columns, its remedy on a separate line.

    Args:
        finding: the finding.
        width: columns reserved for its name.
    """
    head = f"{_MARGIN}{sign(finding.mark)} {finding.name.ljust(width)}{_MARGIN}"
    say(wrapped(head, finding.text))
    if finding.remedy is not None:
        say(wrapped(" " * len(head), f"-> {finding.remedy}"))


def sign(mark: Mark) -> str:
    """Returns the character for a mark: ASCII if the standard output cannot encode the other ones."""
    signs = _SIGNS if _can_show("".join(_SIGNS.values())) else _PLAIN_SIGNS
    return signs[mark]


def wrapped(head: str, text: str) -> str:
    """Returns a head and its text in lines of at most 80 columns; paths and URIs are not broken."""
    return textwrap.fill(
        text,
        width=_COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or head.rstrip()  # fmt: skip


def without_password(text: str) -> str:
    """Returns a text without the user and password of URIs, including a URI that was read as a path."""
    return _USER_AND_PASSWORD.sub("/", text)


def say(text: str) -> None:
    """Prints a text; characters that the output cannot encode, and control characters, are escaped."""
    safe = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
    encoding = _encoding()
    click.echo(safe.encode(encoding, "backslashreplace").decode(encoding))


def _can_show(text: str) -> bool:
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "ascii"
