"""Makes the pictures of docs/how_to/report.md: the pages of simulated runs.

    python scripts/make_report_pictures.py [--output DIRECTORY] [--chromium PATH]

Needs what `chromium.py` needs. The runs are those of `simulated_runs.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import ASSETS, browser, parse_picture_options, picture_parser
from mlflow import MlflowClient
from simulated_runs import KINDS, log

STORE = "sqlite:///runs.db"
EXPERIMENT = "ships"
USERS = ("ada", "grace", "edsger")
WIDTH = 1200  # pixels
PICTURES = {
    "report_input_bound.png": ("resnet50 augmented", 1480),
    "report_healthy.png": ("bert-large", 820),
    "report_experiment.png": ("", 760),
}


def main() -> int:
    """Makes the pictures and returns the exit status."""
    options = parse_picture_options(picture_parser(__doc__, "."))
    output = options.output.resolve() if options.output != ASSETS / "." else ASSETS
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        client = MlflowClient(STORE)
        experiment = client.create_experiment(EXPERIMENT)
        ids = {
            name: log(client, experiment, name, tick=tick, hours=2 + index % 3, user=USERS[index % 3])
            for index, (name, tick) in enumerate(KINDS.items())
        }
        with browser(options, width=WIDTH, height=800) as driver:
            for picture, (name, height) in PICTURES.items():
                what = [ids[name]] if name else ["--experiment", EXPERIMENT]
                command = [
                    sys.executable,
                    "-m",
                    "mlflow_sysmetrics.cli",
                    "report",
                    *what,
                    "--html",
                    "page.html",
                ]
                subprocess.run([*command, "--tracking-uri", STORE], check=True, stdout=subprocess.DEVNULL)
                driver.set_window_size(WIDTH, height)
                driver.get(Path("page.html").resolve().as_uri())
                driver.save_screenshot(str(output / picture))
        os.chdir(ASSETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
