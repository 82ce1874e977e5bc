"""Checks a built documentation site: links, pictures, requests to others, and that the reference is complete.

    mkdocs build --strict --site-dir site && python scripts/check_site.py site

Links to other sites are not followed. Everything that a page loads by itself must be a file of the site.
"""

from __future__ import annotations

import argparse
import ast
import posixpath
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
FOLLOWED = {("a", "href")}
IN_STYLES = re.compile(r"url\(([^)]+)\)|@import ['\"]([^'\"]+)")


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            if (tag, name) in FOLLOWED:
                self.links.append(value)
            elif (tag, name) in LOADED and ("rel", "canonical") not in attrs:
                self.loads.append(value)


def problems(site: Path) -> Iterator[str]:
    """Yields what is wrong."""
    pages = {
        file.relative_to(site).as_posix(): Page(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
    }
    for name, page in pages.items():
        for link in [*page.links, *page.loads]:
            yield from _broken(link, name, pages, site)
        yield from (f"{name} loads {one}" for one in page.loads if urlsplit(one).netloc)
    for style in site.rglob("*.css"):
        for found in IN_STYLES.findall(style.read_text(encoding="utf-8")):
            target = (found[0] or found[1]).strip("'\"")
            if target.startswith(("http:", "https:", "//")):
                yield f"{style.relative_to(site)} loads {target}"
    if not (site / "llms.txt").is_file():
        yield "llms.txt is missing"
    yield from _missing(site)


def _broken(link: str, name: str, pages: dict[str, Page], site: Path) -> Iterator[str]:
    """Yields a link within the site that leads nowhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or name == "404.html":
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path) or "."))
    if not parts.path:
        path = name
    elif (site / path).is_dir():
        path = posixpath.normpath(posixpath.join(path, "index.html"))
    if not (site / path).is_file():
        yield f"{name}: {link} does not exist"
    elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].anchors:
        yield f"{name}: {link} has no such place"


def _missing(site: Path) -> Iterator[str]:
    """Yields public names and commands that the built reference lacks."""
    package = (ROOT / "src" / "mlflow_sysmetrics" / "__init__.py").read_text(encoding="utf-8")
    [names] = [
        ast.literal_eval(node.value)
        for node in ast.parse(package).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    python = Page((site / "reference/python_api/index.html").read_text(encoding="utf-8"))
    yield from (
        f"{one} is not described" for one in names if f"mlflow_sysmetrics.{one}" not in python.anchors
    )
    commands = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for transcript in (ROOT / "tests" / "transcripts").glob("mlflow-sysmetrics-*.txt"):
        if f'id="{transcript.stem}"' not in commands:
            yield f"{transcript.stem} is not described"


def main() -> None:
    """Prints what is wrong, and exits with 1 if something is."""
    parser = argparse.ArgumentParser(description="Checks a built documentation site.")
    parser.add_argument("site", type=Path)
    found = list(problems(parser.parse_args().site))
    print("\n".join([*found, f"{len(found)} problems"]))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
