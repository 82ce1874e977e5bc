"""Makes assets/debug_run.png: what the README's first command prints in a terminal of 80 columns.

    python scripts/make_terminal_picture.py [--seconds 6] [--output PNG] [--chromium PATH]

Runs `debug_run.py` in this source tree, with this interpreter, in a terminal of its own. Needs what that and
`chromium.py` need, a monospaced font, and Linux or macOS.
"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import ASSETS, browser, parse_picture_options, picture_parser, terminal_page
from rich.console import Console
from rich.text import Text
from selenium.webdriver.common.by import By

COLUMNS = 80
ROOT = ASSETS.parent
DATABASE = ROOT / "mlflow-sysmetrics-debug.db"


def main() -> int:
    """Makes the picture and returns the exit status."""
    parser = picture_parser(__doc__, "debug_run.png")
    parser.add_argument("--seconds", default="6", help="passed on to debug_run.py (default: 6)")
    options = parse_picture_options(parser)
    if DATABASE.exists():
        parser.error(f"{DATABASE} exists: move it away, so that the picture shows a first run")
    python = os.path.relpath(sys.executable, ROOT) if Path(sys.executable).is_relative_to(ROOT) else "python"
    try:
        status, output = in_terminal([sys.executable, "scripts/debug_run.py", "--seconds", options.seconds])
    finally:
        DATABASE.unlink(missing_ok=True)
    if status != 0:
        sys.exit(output)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text(f"$ {python} scripts/debug_run.py", style="bold"))
    console.print(Text.from_ansi(output), soft_wrap=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "page.html"
        page.write_text(terminal_page(console.export_svg(title="mlflow-sysmetrics")), encoding="utf-8")
        with browser(options, width=1100, height=2400) as driver:
            driver.get(page.as_uri())
            driver.find_element(By.TAG_NAME, "svg").screenshot(str(options.output.resolve()))
    return 0


def in_terminal(command: list[str]) -> tuple[int, str]:
    """Returns the exit status of a command and what it prints, the standard error first."""
    ours, terminal = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    # Not from the terminal: the progress bar is erased when it is done.
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=terminal, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(terminal)
        progress = process.stderr.read() if process.stderr else ""
        printed = b""
        try:
            while block := os.read(ours, 65_536):
                printed += block
        except OSError:  # Linux's way to say that nobody writes any more
            pass
        finally:
            os.close(ours)
    return process.returncode, f"{progress.rstrip()}\n\n{printed.decode()}".replace("\r\n", "\n")


if __name__ == "__main__":
    sys.exit(main())
