"""Makes assets/system_metrics.png: the tab "System metrics" of a real debug run in MLflow's UI.

    python scripts/make_ui_picture.py [--seconds 40] [--interval 1] [--output PNG] [--chromium PATH]

Needs what `debug_run.py` and `chromium.py` need. Made for MLflow 3; the page of an older one looks different.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import debug_run
from chromium import browser, parse_picture_options, picture_parser
from debug_report import Report
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

STORE = "sqlite:///debug.db"
WIDTH, HEIGHT = 1340, 1560  # pixels; three rows of three charts
SERVER_SECONDS = 60
CHARTS_SECONDS = 60
SETTLE_SECONDS = 2  # charts reach their final size after they are drawn
DRAWN = ".js-plotly-plot .scatterlayer path.js-line"
# Elements that would cover charts: MLflow's assistant, the side bar, and the tools of each chart.
CLOSE = ("mlflow.assistant.chat_panel.close", "mlflow_header.toggle_sidebar_button")
HIDDEN = ".modebar { display: none !important }"
HIDE = "document.head.appendChild(document.createElement('style')).textContent = arguments[0]"


def main() -> int:
    """Makes the picture and returns the exit status."""
    options = parse_options()
    output = options.output.resolve()
    home = Path.cwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            logging.disable(logging.INFO)
            os.environ["MLFLOW_TRACKING_URI"] = STORE
            debug_run.prepare_environment(options.interval)
            report = debug_run.debug_run(options.seconds, debug_run.plain_console(stderr=True))
            if report.problems:
                sys.exit("; ".join(report.problems))
            with server() as address, browser(options, width=WIDTH, height=HEIGHT) as driver:
                photograph(driver, address, report, output)
        finally:
            os.chdir(home)
    return 0


def parse_options() -> argparse.Namespace:
    """Returns the options."""
    parser = picture_parser(__doc__, "system_metrics.png")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the run (default: 40)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between points (default: 1)")
    return parse_picture_options(parser)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Runs an MLflow server on the store and yields its address; ends all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", STORE, "--workers", "1"]
    # MLflow starts gunicorn or uvicorn by name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with Path("server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(process, address)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers; a temporary store loses nothing
        process.wait()


def wait_for_server(process: subprocess.Popen[bytes], address: str) -> None:
    """Waits until the server answers; exits with its log if it does not."""
    ends = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            closing(HTTPConnection(address.removeprefix("http://"), timeout=5)) as connection,
        ):
            connection.request("GET", "/health")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.2)
    sys.exit(f"The MLflow server did not start:\n{Path('server.log').read_text(encoding='utf-8')[-2000:]}")


def photograph(driver: Chrome, address: str, report: Report, output: Path) -> None:
    """Opens the run's tab, waits until every chart has its line, and takes the picture."""
    driver.get(f"{address}/#/experiments/0/runs/{report.run_id}/system-metrics")
    wait = WebDriverWait(driver, CHARTS_SECONDS)
    try:
        wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, DRAWN)) >= len(report.metrics))
    except TimeoutException:
        driver.save_screenshot(str(output))
        sys.exit(f"The charts did not appear within {CHARTS_SECONDS} s; {output} shows what did")
    for name in CLOSE:
        for button in driver.find_elements(By.CSS_SELECTOR, f'[data-component-id="{name}"]'):
            button.click()
    driver.execute_script(HIDE, HIDDEN)
    time.sleep(SETTLE_SECONDS)
    driver.find_element(By.TAG_NAME, "main").screenshot(str(output))


if __name__ == "__main__":
    sys.exit(main())
