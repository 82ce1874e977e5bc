"""Makes assets/cluster_nodes.png: the tab "System metrics" of a run of two nodes, in MLflow's UI.

    python scripts/make_cluster_picture.py [--seconds 60] [--output PNG] [--chromium PATH]

Runs examples/cluster/train_torchrun.py twice on this machine, each as one of two nodes. Needs what
`make_ui_picture.py` needs, and torch.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from chromium import browser, parse_picture_options, picture_parser
from make_ui_picture import CHARTS_SECONDS, CLOSE, DRAWN, HIDDEN, HIDE, SETTLE_SECONDS, server
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PROGRAM = Path(__file__).resolve().parent.parent / "examples" / "cluster" / "train_torchrun.py"
WIDTH, HEIGHT = 1340, 1100  # pixels
SEARCH = r"cpu_utilization|memory_usage_p|process_cpu"
NODES = ("node_0", "node_1")


def main() -> int:
    """Makes the picture and returns the exit status."""
    parser = picture_parser(__doc__, "cluster_nodes.png")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the run (default: 60)")
    options = parse_picture_options(parser)
    output = options.output.resolve()
    home = Path.cwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            with server() as address:
                train(address, options.seconds)
                [run] = mlflow.MlflowClient(address).search_runs(["0"])
                with browser(options, width=WIDTH, height=HEIGHT) as driver:
                    photograph(driver, f"{address}/#/experiments/0/runs/{run.info.run_id}", output)
        finally:
            os.chdir(home)
    return 0


def train(address: str, seconds: float) -> None:
    """Trains on two nodes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=2",
        "--rdzv-id=picture",
    ]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", str(PROGRAM)]
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
        "OMP_NUM_THREADS": "1",
        "SECONDS_TO_TRAIN": str(seconds),
        "MLFLOW_SYSMETRICS_SPOOL_DIR": "off",
    }
    ranks = [subprocess.Popen(command, env={**environ, "MLFLOW_SYSMETRICS_HOST_ID": node}) for node in NODES]
    if any(one.wait() for one in ranks):
        sys.exit("the training failed")


def photograph(driver: Chrome, page: str, output: Path) -> None:
    """Opens the run's tab, leaves the charts that matter first, and takes the picture."""
    driver.get(f"{page}/system-metrics")
    wait = WebDriverWait(driver, CHARTS_SECONDS)
    wait.until(lambda shown: shown.find_elements(By.CSS_SELECTOR, DRAWN))
    for name in CLOSE:
        for button in driver.find_elements(By.CSS_SELECTOR, f'[data-component-id="{name}"]'):
            button.click()
    search = next(
        iter(driver.find_elements(By.CSS_SELECTOR, 'input[placeholder*="earch metric charts"]')), None
    )
    if search is not None:
        search.send_keys(SEARCH)
    driver.execute_script(HIDE, HIDDEN)
    time.sleep(SETTLE_SECONDS)
    with contextlib.suppress(Exception):  # a page without a second section shows what is wrong
        wait.until(lambda shown: len(shown.find_elements(By.CSS_SELECTOR, DRAWN)) >= 2 * len(NODES))
    time.sleep(SETTLE_SECONDS)
    driver.find_element(By.TAG_NAME, "main").screenshot(str(output))


if __name__ == "__main__":
    sys.exit(main())
