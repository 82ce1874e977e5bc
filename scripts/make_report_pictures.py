"""Makes the pictures of docs/how_to/report.md: pages of simulated runs, and one of them in MLflow's UI.

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
from make_ui_picture import CLOSE
from mlflow import MlflowClient
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from simulated_runs import KINDS, log

from mlflow_sysmetrics import LocalServer
from mlflow_sysmetrics.report.artifact import ClientServer
from mlflow_sysmetrics.report.completion import complete

STORE = "sqlite:///runs.db"
EXPERIMENT = "ships"
USERS = ("ada", "grace", "edsger")
WIDTH = 1200  # pixels
UI_SECONDS = 60
PICTURES = {
    "report_input_bound.png": ("resnet50 augmented", 1480),
    "report_healthy.png": ("bert-large", 820),
    "report_experiment.png": ("", 760),
}


def photograph_description(driver: Chrome, run_id: str, output: Path) -> None:
    """Takes a picture of a run in MLflow's UI whose Description has its verdict."""
    complete(ClientServer(STORE), run_id, describe=True)
    experiment = MlflowClient(STORE).get_run(run_id).info.experiment_id
    with LocalServer(STORE) as server:
        driver.set_window_size(WIDTH, 1000)
        driver.get(f"{server.url}/#/experiments/{experiment}/runs/{run_id}")
        WebDriverWait(driver, UI_SECONDS).until(
            lambda page: page.find_elements(By.XPATH, "//strong[text()='input-bound']")
        )
        for name in CLOSE:
            for button in driver.find_elements(By.CSS_SELECTOR, f'[data-component-id="{name}"]'):
                button.click()
        driver.find_element(By.TAG_NAME, "main").screenshot(str(output / "report_description.png"))


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
            photograph_description(driver, ids[PICTURES["report_input_bound.png"][0]], output)
        os.chdir(ASSETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
