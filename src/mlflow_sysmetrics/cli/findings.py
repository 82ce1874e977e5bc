"""What a command that looks for faults has found: marked lines for people, the same as JSON for programs."""

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
_USER_AND_PASSWORD = re.compile(r"/[^\s/]*@")  # rather too much than too little: a password may hold a colon


class Mark(Enum):
    """What a finding means, in order of weight; the value is its name in JSON."""

    GOOD = "ok"  #: as it should be
    PLAIN = "plain"  #: neither good nor bad
    ABSENT = "absent"  #: not here, or switched off, which is no fault
    NOTE = "note"  #: works, and there is something to know or to do
    WRONG = "wrong"  #: does not work


_SIGNS = {Mark.GOOD: "✓", Mark.PLAIN: _UNMARKED, Mark.ABSENT: "–", Mark.NOTE: "!", Mark.WRONG: "✗"}  # noqa: RUF001
_PLAIN_SIGNS = {Mark.GOOD: "+", Mark.PLAIN: _UNMARKED, Mark.ABSENT: "-", Mark.NOTE: "!", Mark.WRONG: "x"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that was found.

    Attributes:
        name: what was looked at.
        mark: what the fact means.
        text: the fact, in a few words without secrets.
        remedy: what to do; None where nothing is to be done.
        more: what only programs want to know, under names of its own.
    """

    name: str
    mark: Mark
    text: str
    remedy: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """Returns it for JSON."""
        fixed = {"name": self.name, "state": self.mark.value, "text": self.text, "remedy": self.remedy}
        return {**fixed, **self.more}


@dataclass(frozen=True, slots=True)
class Section:
    """Findings under one heading.

    Attributes:
        key: its name in JSON.
        title: its heading.
        findings: in the order in which they are shown.
    """

    key: str
    title: str
    findings: Sequence[Finding]


def print_section(section: Section) -> None:
    """Prints a heading and, under it, a marked line for each finding: name, text and remedy."""
    say(section.title)
    width = max((len(finding.name) for finding in section.findings), default=0)
    for finding in section.findings:
        print_finding(finding, width)


def print_finding(finding: Finding, width: int) -> None:
    """Prints one finding within 80 columns, its remedy on a line of its own.

    Args:
        finding: what was found.
        width: columns that its name takes.
    """
    head = f"{_MARGIN}{sign(finding.mark)} {finding.name.ljust(width)}{_MARGIN}"
    say(wrapped(head, finding.text))
    if finding.remedy is not None:
        say(wrapped(" " * len(head), f"-> {finding.remedy}"))


def sign(mark: Mark) -> str:
    """Returns the character for a mark: one of ASCII where the standard output cannot show the nicer one."""
    signs = _SIGNS if _can_show("".join(_SIGNS.values())) else _PLAIN_SIGNS
    return signs[mark]


def wrapped(head: str, text: str) -> str:
    """Returns a head and its text in lines of at most 80 columns; paths and URIs are left whole."""
    return textwrap.fill(
        text,
        width=_COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or head.rstrip()  # fmt: skip


def without_password(text: str) -> str:
    """Returns a text without the user and password of a URI, also of one that was taken for a path."""
    return _USER_AND_PASSWORD.sub("/", text)


def say(text: str) -> None:
    """Prints a text; what the standard output cannot show, or would obey, stands as an escape."""
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
