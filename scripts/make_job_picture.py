"""Makes assets/failed_job.png: a job of examples/submitted_job without a tracking server, as it is shown.

    python scripts/make_job_picture.py [--output PNG] [--chromium PATH]

Runs the first two commands of the example's README. Needs the package with its extra `cli`, what
`chromium.py` needs, and a monospaced font.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import browser, parse_picture_options, picture_parser, terminal_page
from rich.console import Console
from selenium.webdriver.common.by import By

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "submitted_job"
COLUMNS = 80


def main() -> int:
    """Makes the picture and returns the exit status."""
    options = parse_picture_options(picture_parser(__doc__, "failed_job.png"))
    output = options.output.resolve()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        console = Console(
            record=True, width=COLUMNS, file=nowhere, highlight=False, markup=False, emoji=False
        )
        for command in commands():
            console.print(f"$ {command}", style="bold")
            console.print(printed_by(command, folder), end="")
        page = Path(folder) / "page.html"
        page.write_text(terminal_page(console.export_svg(title="submitted_job")), encoding="utf-8")
        with browser(options, width=1400, height=1000) as driver:
            driver.get(page.as_uri())
            driver.find_element(By.TAG_NAME, "svg").screenshot(str(output))
    return 0


def commands() -> list[str]:
    """Returns the commands of README that submit and show a job without a tracking server."""
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found[1].splitlines() if found else []


def printed_by(command: str, folder: str) -> str:
    """Runs a command of README and returns its output."""
    _, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
