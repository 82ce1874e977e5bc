"""Findings of `doctor`, `server doctor` and `check`, printed as marked lines or as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mlflow_sysmetrics.cli.output import (
    can_show,
    columns,
    columns_of,
    counted,
    left_aligned,
    say,
    say_wrapped,
    wrapped,
)

_MARGIN = "  "
_UNMARKED = " "
_LONGEST_NEXT = 60  # characters of a remedy that is repeated in the last line
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
        remedy: what to do; None if there is nothing to do. Only a note or a fault has one: the summary
            counts these.
        more: further fields for JSON.

    Raises:
        ValueError: there is a remedy for what needs none.
    """

    name: str
    mark: Mark
    text: str
    remedy: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.remedy is not None and self.mark not in {Mark.NOTE, Mark.WRONG}:
            raise ValueError(f"a finding with a remedy must be a note or wrong, got {self.mark}: {self.text}")

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
    width = max((columns_of(finding.name) for finding in section.findings), default=0)
    for finding in section.findings:
        print_finding(finding, width)


def print_finding(finding: Finding, width: int) -> None:
    """Prints one finding in lines that fit the terminal, its remedy on a separate line.

    Args:
        finding: the finding.
        width: columns reserved for its name.
    """
    head = f"{_MARGIN}{sign(finding.mark)} {left_aligned(finding.name, width)}{_MARGIN}"
    say(wrapped(head, finding.text))
    if finding.remedy is not None:
        remedy = f"-> {finding.remedy}"
        beside = wrapped(" " * columns_of(head), remedy)
        # A command is easier to copy from one line, which may have to begin further left.
        alone = f"{_MARGIN}{_MARGIN}{remedy}"
        say(alone if "\n" in beside and columns_of(alone) <= columns() else beside)


def print_summary(sections: Iterable[Section], otherwise: str | None = None) -> None:
    """Prints the result in one line, and in the next line what to do first.

    Args:
        sections: what was printed.
        otherwise: what to do if no finding says so; by default nothing is printed then.
    """
    findings = [finding for section in sections for finding in section.findings]
    wrong = [one for one in findings if one.mark is Mark.WRONG]
    notes = [one for one in findings if one.mark is Mark.NOTE]
    if wrong:
        names = ", ".join(one.name for one in wrong)
        say_wrapped(f"{counted(len(wrong), 'thing')} {'is' if len(wrong) == 1 else 'are'} wrong: {names}.")
    elif notes:
        say(f"Nothing is broken; see the {counted(len(notes), 'line')} marked {sign(Mark.NOTE)}")
    else:
        say("Nothing is wrong.")
    first = next((one for one in (*wrong, *notes) if one.remedy is not None), None)
    if first is not None:
        short = first.remedy is not None and len(first.remedy) <= _LONGEST_NEXT
        say_wrapped(f"Next: {first.remedy} ({first.name})" if short else f"Next: see {first.name}, above.")
    elif wrong:
        say("Next: see above.")
    elif otherwise is not None:
        say(f"Next: {otherwise}")


def remedies(sections: Iterable[Section]) -> list[str]:
    """Returns what to do, the faults first."""
    findings = [finding for section in sections for finding in section.findings]
    return [
        one.remedy
        for mark in (Mark.WRONG, Mark.NOTE)
        for one in findings
        if one.mark is mark and one.remedy is not None
    ]


def is_wrong(sections: Iterable[Section]) -> bool:
    """Returns whether any finding is a fault."""
    return any(finding.mark is Mark.WRONG for section in sections for finding in section.findings)


def sign(mark: Mark) -> str:
    """Returns the character for a mark: ASCII if the standard output cannot encode the other ones."""
    signs = _SIGNS if can_show("".join(_SIGNS.values())) else _PLAIN_SIGNS
    return signs[mark]


def without_password(text: str) -> str:
    """Returns a text without the user and password of URIs, including a URI that was read as a path."""
    return _USER_AND_PASSWORD.sub("/", text)
