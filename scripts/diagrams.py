"""The pictures of the Mermaid diagrams in the documents: which there are, and their names.

A picture's name has the first digits of the checksum of its diagram, so a changed diagram has no picture
until scripts/make_diagrams.py has drawn it; tests/unit/test_site.py looks for that.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "diagrams"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIGITS = 12


class Picture(NamedTuple):
    """The picture of a diagram."""

    name: str
    description: str


def picture_of(diagram: str) -> Picture:
    """Returns the picture of a diagram; its description is the diagram's own `accDescr`."""
    found = re.search(r"accDescr: (.*)", diagram)
    number = hashlib.sha256(diagram.encode()).hexdigest()[:_DIGITS]
    return Picture(f"{number}.svg", found[1].strip() if found else "")


def diagrams() -> dict[Path, list[str]]:
    """Returns the diagrams of each document that has some."""
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
    found = {page: DIAGRAM.findall(page.read_text(encoding="utf-8")) for page in pages}
    return {page: those for page, those in found.items() if those}
