"""The documentation site: its navigation, its diagrams, and the links that its hooks make."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
HOOKS = (ROOT / "scripts" / "site_hooks.py").read_text(encoding="utf-8")
drawing = runpy.run_path(str(ROOT / "scripts" / "diagrams.py"))
DIAGRAMS = [(page, text) for page, those in drawing["diagrams"]().items() for text in those]


def leaves(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for target in entry.values():
            if isinstance(target, list):
                yield from leaves(target)
            else:
                yield target


def test_every_page_is_in_the_navigation() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages - set(leaves(CONFIG["nav"])) == set()


def test_every_entry_of_the_navigation_is_a_page() -> None:
    elsewhere = set(re.findall(r'": "([\w/]+\.md)"', HOOKS))
    elsewhere |= {f"examples/{page.parent.name}.md" for page in (ROOT / "examples").glob("*/README.md")}
    missing = [one for one in leaves(CONFIG["nav"]) if not (DOCS / one).is_file() and one not in elsewhere]
    assert missing == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert CONFIG["theme"]["font"] == "false"
    assert not [one for one in [*CONFIG["extra_css"], *CONFIG.get("extra_javascript", [])] if "://" in one]
    for file in (DOCS / "stylesheets").iterdir():
        assert "://" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "diagram"), DIAGRAMS, ids=[page.name for page, _ in DIAGRAMS])
def test_every_diagram_is_drawn_and_described(page: Path, diagram: str) -> None:
    picture = drawing["picture_of"](diagram)
    assert picture.description, page
    assert (drawing["PICTURES"] / picture.name).is_file(), "draw it: scripts/make_diagrams.py"


def test_every_picture_has_a_diagram() -> None:
    names = {drawing["picture_of"](diagram).name for _, diagram in DIAGRAMS}
    assert {file.name for file in drawing["PICTURES"].iterdir()} == names
