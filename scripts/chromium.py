"""A headless Chromium for the scripts that take pictures.

Needs: pip install selenium; Chromium or Chrome; the chromedriver of the same version.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service
except ImportError:
    sys.exit("This script needs selenium: pip install selenium")

ASSETS = Path(__file__).resolve().parent.parent / "assets"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

FONTS = "'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace"
PAGE = (
    "<!doctype html><meta charset=utf-8><style>body {{ margin: 0 }} svg {{ width: {width}px }}</style>{svg}"
)


def picture_parser(doc: str | None, output: str) -> argparse.ArgumentParser:
    """Returns a parser with the options shared by all picture scripts."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--chromium", default=_first(NAMES), help="Chromium or Chrome (default: from PATH)")
    parser.add_argument("--chromedriver", default=shutil.which("chromedriver"), help="default: from PATH")
    parser.add_argument("--output", type=Path, default=ASSETS / output, help="default: %(default)s")
    return parser


def parse_picture_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Returns the options; exits before any work is done if the browser is missing."""
    options = parser.parse_args()
    for name in ("chromium", "chromedriver"):
        path = getattr(options, name)
        if path is None or shutil.which(path) is None:
            parser.error(
                f"{name} not found at {path or 'any place in PATH'}: install it, or pass --{name} PATH"
            )
    return options


def _first(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browser(options: argparse.Namespace, *, width: int, height: int) -> Iterator[Chrome]:
    """Opens a browser with a window of that size in pixels, and closes it."""
    chrome = ChromeOptions()
    chrome.binary_location = options.chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*QUIET, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
            chrome.add_argument(flag)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            chrome.add_argument("--no-sandbox")  # Chromium's sandbox refuses to run as root
        driver = Chrome(options=chrome, service=Service(options.chromedriver))
        try:
            yield driver
        finally:
            driver.quit()


def terminal_page(svg: str) -> str:
    """Returns a page with the picture of a terminal that rich exports, in fonts of this machine."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # rich's fonts are loaded from the network
    svg = svg.replace("Fira Code, monospace", FONTS)
    width = re.search(r'viewBox="0 0 (\d+)', svg)
    return PAGE.format(width=width[1] if width else "100%", svg=svg)
