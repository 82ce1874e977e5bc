"""Draws the Mermaid diagrams of the documents as pictures for the site, into docs/diagrams.

    npm pack mermaid@11 && tar xzf mermaid-11*.tgz package/dist/mermaid.min.js
    python scripts/make_diagrams.py --mermaid package/dist/mermaid.min.js

Pictures are kept, so that building the site needs neither a browser nor npm, and a page loads no library.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from chromium import browser, parse_picture_options, picture_parser
from diagrams import PICTURES, diagrams, picture_of

PAGE = '<!doctype html><meta charset=utf-8><body><script src="{library}"></script></body>'
# Plain text instead of HTML in labels: a picture in an <img> shows it in every browser.
DRAW = """
const [text, done] = [arguments[0], arguments[arguments.length - 1]];
mermaid.initialize({
  startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: {htmlLabels: false, useMaxWidth: false},
  deterministicIds: true, themeVariables: {fontFamily: "Arial, Helvetica, sans-serif", fontSize: "14px"},
});
mermaid.render("diagram", text).then(({svg}) => done(svg), error => done("!" + error));
"""
BACKGROUND = '<svg style="background: white; padding: 8px" '  # readable on a dark page, too


def draw(options: argparse.Namespace) -> None:
    """Draws what has no picture, and removes pictures without a diagram."""
    wanted = {picture_of(one).name: one for those in diagrams().values() for one in those}
    PICTURES.mkdir(exist_ok=True)
    for file in PICTURES.glob("*.svg"):
        if file.name not in wanted:
            file.unlink()
    with browser(options, width=1400, height=1000) as driver, tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(PAGE.format(library=options.mermaid.resolve().as_uri()), encoding="utf-8")
        driver.get(page.as_uri())
        for name, text in wanted.items():
            if options.again or not (PICTURES / name).exists():
                svg = driver.execute_async_script(DRAW, text)
                if svg.startswith("!"):
                    raise SystemExit(f"{name} cannot be drawn: {svg[1:]}")
                svg = svg.replace('style="max-width', 'data-style="max-width').replace("<svg ", BACKGROUND, 1)
                (PICTURES / name).write_text(f"{svg}\n", encoding="utf-8")
                print(name)


def main() -> None:
    """Draws the pictures."""
    parser = picture_parser(__doc__, "")
    parser.add_argument(
        "--mermaid", type=Path, required=True, help="mermaid.min.js of the npm package mermaid"
    )
    parser.add_argument("--again", action="store_true", help="draw all, not only those without a picture")
    draw(parse_picture_options(parser))


if __name__ == "__main__":
    main()
