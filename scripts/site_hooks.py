"""Hooks of the documentation site: pages and pictures from outside docs/, diagrams, and llms.txt.

Documents link to each other as files of the repository, so that they work wherever the repository is shown.
Here such a link becomes one of the site: to a page, to a picture, or to the file in the repository. Diagrams
are drawn in advance (scripts/make_diagrams.py), so that a page needs no library from elsewhere.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from diagrams import picture_of
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages that stand where the repository shows them: file, page of the site.
PAGES = {
    "deploy/README.md": "deploy.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "SECURITY.md": "about/security_policy.md",
    **{
        f"examples/{folder.name}/README.md": f"examples/{folder.name}.md"
        for folder in sorted((ROOT / "examples").iterdir())
        if (folder / "README.md").is_file()
    },
}
HOMES = {page: file for file, page in PAGES.items()}
HOME = {"README.md": "index.md"}
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A dialog has a name, an empty cell is not a heading; docs/javascripts/site.js has what the theme undoes.
ACCESSIBLE = {
    'component="search" role="dialog"': 'component="search" role="dialog" aria-label="Search"',
    "<th></th>": "<td></td>",
}
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def on_config(config: Any) -> None:
    """Shows the choice of a version where mike builds one; elsewhere there is no list of versions to load."""
    if os.environ.get("MIKE_DOCS_VERSION"):
        config.extra["version"] = {"provider": "mike", "default": "latest"}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and pictures that are not in docs/."""
    for file, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / file)))
    for picture in sorted((ROOT / "assets").glob("*.png")):
        files.append(File.generated(config, f"assets/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns links of the repository into links of the site, and diagrams into pictures."""
    del files
    own = page.file.src_uri
    source = ROOT / HOMES[own] if own in HOMES else DOCS / own
    if own == "benchmarks.md":  # its titles of tables have no level above them
        markdown = re.sub(r"^####(?= )", "###", markdown, flags=re.MULTILINE)
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [_linked(markdown[end : fence.start()], source, own, config), _drawn(fence, own)]
        end = fence.end()
    return "".join([*parts, _linked(markdown[end:], source, own, config)])


def _linked(text: str, source: Path, own: str, config: Any) -> str:
    """Returns a text without code blocks with its links as the site has them."""

    def replaced(found: re.Match[str]) -> str:
        label, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return found[0]
        file = Path(os.path.normpath(source.parent / path))
        page = page_of(file)
        if page is not None:
            return f"{label}({posixpath.relpath(page, posixpath.dirname(own) or '.')}{mark}{anchor})"
        if not file.exists():
            return found[0]  # the build names it
        if config.repo_url:
            return f"{label}({config.repo_url.rstrip('/')}/blob/HEAD/{file.relative_to(ROOT)}{mark}{anchor})"
        return f"{label[1:-1]} (`{file.relative_to(ROOT)}`)"  # nowhere to link to yet

    return LINK.sub(replaced, text)


def page_of(file: Path) -> str | None:
    """Returns where a file of the repository is on the site; None if it is not there."""
    if not file.is_relative_to(ROOT):
        return None
    name = file.relative_to(ROOT).as_posix()
    if file.is_relative_to(DOCS) and file.is_file():
        return file.relative_to(DOCS).as_posix()
    if name.startswith("assets/") and file.is_file():
        return name
    return {**PAGES, **HOME}.get(name) or PAGES.get(f"{name}/README.md")


def _drawn(fence: re.Match[str], own: str) -> str:
    """Returns a code block, or the picture of a diagram."""
    if fence[2] != "mermaid":
        return fence[0]
    picture = picture_of(fence[3])
    place = posixpath.relpath(f"diagrams/{picture.name}", posixpath.dirname(own) or ".")
    return f"![{picture.description}]({place})"


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Gives a page what readers without a mouse or a screen need."""
    del page, config
    for found, better in ACCESSIBLE.items():
        output = output.replace(found, better)
    return output


def on_post_build(config: Any) -> None:
    """Writes llms.txt: the pages with their first sentence, for programs that read the documentation."""
    site = Path(config.site_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for section in config.nav[1:]:
        [(title, entries)] = section.items()
        lines += [f"## {title}", "", *(_entry(name, page) for name, page in _leaves(entries)), ""]
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def _leaves(entries: list[Any]) -> list[tuple[str, str]]:
    """Returns titles and files of the pages of a part of the navigation."""
    found: list[tuple[str, str]] = []
    for entry in entries:
        [(title, target)] = entry.items()
        found += _leaves(target) if isinstance(target, list) else [(title, target)]
    return found


def _entry(title: str, page: str) -> str:
    """Returns the line of a page: its title, its address, its first sentence."""
    source = ROOT / HOMES[page] if page in HOMES else DOCS / page
    text = FENCE.sub("", source.read_text(encoding="utf-8"))
    after = TITLE.split(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL), maxsplit=1)[-1].strip()
    paragraph = " ".join(after.split("\n\n", maxsplit=1)[0].split())
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    sentence = re.split(r"(?<=[.:]) ", plain, maxsplit=1)[0] if not plain.startswith(("|", "```")) else ""
    address = page.removesuffix(".md") + "/"
    return f"- [{title}]({address})" + (f": {sentence}" if sentence else "")
