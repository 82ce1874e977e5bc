"""Makes assets/debug_run.png: the output of a real debug run, as a terminal shows it.

    python scripts/make_terminal_picture.py [--seconds 6] [--output PNG] [--chromium PATH]

Needs what `debug_run.py` and `chromium.py` need, and a monospaced font.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import debug_run
from chromium import browser, parse_picture_options, picture_parser, terminal_page
from rich.console import Console
from selenium.webdriver.common.by import By

COLUMNS = 108  # about 1,340 pixels in rich's font


def main() -> int:
    """Makes the picture and returns the exit status."""
    parser = picture_parser(__doc__, "debug_run.png")
    parser.add_argument("--seconds", default="6", help="passed on to debug_run.py (default: 6)")
    options = parse_picture_options(parser)
    output = options.output.resolve()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Path(os.devnull).open("w") as nowhere,
    ):
        os.chdir(folder)
        console = Console(
            record=True,
            width=COLUMNS,
            file=nowhere,
            markup=False,
            emoji=False,
            highlight=False,
            force_terminal=True,
        )
        console.print("$ python scripts/debug_run.py\n", style="bold")
        status = debug_run.main(["--seconds", options.seconds], out=console)
        if status == 0:
            page = Path(folder) / "page.html"
            page.write_text(terminal_page(console.export_svg(title="mlflow-sysmetrics")), encoding="utf-8")
            with browser(options, width=1400, height=1400) as driver:
                driver.get(page.as_uri())
                driver.find_element(By.TAG_NAME, "svg").screenshot(str(output))
        os.chdir(output.parent)
    return status


if __name__ == "__main__":
    sys.exit(main())
