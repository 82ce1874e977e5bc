"""Makes the pictures of docs/how_to/training.md: the three examples in MLflow's UI.

    python scripts/make_training_pictures.py [--output DIRECTORY] [--chromium PATH]

Needs the extras `train` and `hpo`, and what `chromium.py` needs. Made for MLflow 3; the pages of an older one
look different.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chromium import ASSETS, browser, parse_picture_options, picture_parser
from mlflow import MlflowClient
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mlflow_sysmetrics import LocalServer

EXAMPLES = ASSETS.parent / "examples"
WIDTH, HEIGHT, LOW = 1500, 1250, 620  # pixels
CHARTS = 6  # that fit into a window of this size
PAGE_SECONDS = 60
SETTLE_SECONDS = 4  # tables and charts reach their final size after they are drawn
UNFOLD = '[id^="cell-attributes.`Run Name`"] button'
DRAWN = ".js-plotly-plot .scatterlayer"
# Elements that would cover the page: MLflow's assistant, the side bar, and the tools of each chart.
CLOSE = ("mlflow.assistant.chat_panel.close", "mlflow_header.toggle_sidebar_button")
HIDE = "document.head.appendChild(document.createElement('style')).textContent = arguments[0]"
HIDDEN = ".modebar { display: none !important }"


def main() -> int:
    """Makes the pictures and returns the exit status."""
    parser = picture_parser(__doc__, ".")
    options = parse_picture_options(parser)
    output = options.output.resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, LocalServer() as server:
        environ = {**os.environ, **server.environ, "GIT_PYTHON_REFRESH": "quiet"}
        for program, *arguments in (
            ("training/train.py", "checkpoints"),
            ("hpo/search.py", server.url, "sqlite:///study.db"),
            ("registry/ships.py", server.url),
        ):
            command = [sys.executable, "-W", "ignore", str(EXAMPLES / program), *arguments]
            subprocess.run(command, env=environ, cwd=folder, check=True)
        client = MlflowClient(server.url)
        with browser(options, width=WIDTH, height=HEIGHT) as driver:
            for name, page, ready in pages(client, server.url):
                driver.set_window_size(WIDTH, LOW if "registry" in name else HEIGHT)
                photograph(driver, page, ready, output / name)
    return 0


def pages(client: MlflowClient, url: str) -> list[tuple[str, str, Callable[[Chrome], bool]]]:
    """Returns the name of each picture, the address of its page, and a test that the page is loaded."""
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)
    training = next(run for run in runs if "final/best_epoch" in run.data.metrics and not parent(run))
    study = next(run for run in runs if run.data.tags.get("mlflow_sysmetrics.kind") == "hpo_study")
    (model,) = client.search_registered_models()
    of_training = f"{url}/#/experiments/{training.info.experiment_id}/runs/{training.info.run_id}"
    return [
        ("training_run.png", f"{of_training}/model-metrics", lambda page: len(found(page, DRAWN)) >= CHARTS),
        (
            "training_study.png",
            f"{url}/#/experiments/{study.info.experiment_id}/runs",
            unfolded,
        ),
        (
            "training_registry.png",
            f"{url}/#/models/{model.name}",
            lambda page: "Version 1" in page.page_source,
        ),
    ]


def unfolded(page: Chrome) -> bool:
    """Expands the run of the study, and returns whether its trials are visible."""
    if "trial_0030" in page.page_source:
        return True
    for button in page.find_elements(By.CSS_SELECTOR, UNFOLD)[:1]:
        button.click()
        time.sleep(SETTLE_SECONDS)
    return False


def parent(run: object) -> str | None:
    """Returns the parent run id of a run, if it has one."""
    tags: dict[str, str] = run.data.tags  # type: ignore[attr-defined]
    return tags.get("mlflow.parentRunId")


def found(page: Chrome, selector: str) -> list[object]:
    """Returns the elements of a page that match a selector."""
    return list(page.find_elements(By.CSS_SELECTOR, selector))


def photograph(driver: Chrome, address: str, ready: Callable[[Chrome], bool], output: Path) -> None:
    """Opens a page, waits until it is loaded, and takes the picture."""
    driver.get("about:blank")
    driver.get(address)
    try:
        WebDriverWait(driver, PAGE_SECONDS).until(ready)
    except TimeoutException:
        driver.save_screenshot(str(output))
        sys.exit(f"{address} did not load within {PAGE_SECONDS} s; {output} shows what did")
    for name in CLOSE:
        for button in driver.find_elements(By.CSS_SELECTOR, f'[data-component-id="{name}"]'):
            button.click()
    driver.execute_script(HIDE, HIDDEN)
    time.sleep(SETTLE_SECONDS)
    driver.find_element(By.TAG_NAME, "main").screenshot(str(output))


if __name__ == "__main__":
    sys.exit(main())
