"""Makes the pictures of docs/how_to/watch.md: `mlflow-sysmetrics watch` of simulated runs, in 80 columns.

    python scripts/make_watch_pictures.py [--output DIRECTORY] [--chromium PATH]

Needs what `chromium.py` needs, and rich. The runs are those of `simulated_runs.py`.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path

from chromium import ASSETS, browser, parse_picture_options, picture_parser, terminal_page
from mlflow import MlflowClient
from rich.console import Console
from rich.text import Text
from selenium.webdriver.common.by import By
from simulated_runs import KINDS, log

from mlflow_sysmetrics.cli.tracked_runs import TrackingServer
from mlflow_sysmetrics.live.board import Board
from mlflow_sysmetrics.live.remote import RemoteRuns
from mlflow_sysmetrics.live.requests import Requests
from mlflow_sysmetrics.live.screen import draw
from mlflow_sysmetrics.live.terminal import STYLES
from mlflow_sysmetrics.live.view import View

STORE = "sqlite:///runs.db"
SIZE = 80, 24
CHOSEN = "resnet50 augmented"


def main() -> int:
    """Makes the pictures and returns the exit status."""
    options = parse_picture_options(picture_parser(__doc__, "."))
    output = options.output.resolve() if options.output != ASSETS / "." else ASSETS
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        client = MlflowClient(STORE)
        experiment = client.create_experiment("ships")
        ids = {
            name: log(client, experiment, name, tick=tick, hours=1 + index % 3, user="ada")
            for index, (name, tick) in enumerate(KINDS.items())
        }
        for run_id in ids.values():
            client.update_run(run_id, status="RUNNING")
        listed = Board("ships on http://mlflow.example.org:5000")
        server = Requests(TrackingServer(STORE))
        source = RemoteRuns(server, None, [experiment])
        for run_id in (*ids.values(), ids[CHOSEN]):
            listed.chosen = run_id
            RemoteRuns(server, run_id).begin(listed)
            for _ in range(60):
                source.step(listed)
            listed.runs[run_id].judge()
        with browser(options, width=1100, height=900) as driver:
            for picture, chosen in (("watch_run.png", ids[CHOSEN]), ("watch_experiment.png", None)):
                listed.chosen = chosen
                Path("page.html").write_text(terminal_page(_svg(listed)), encoding="utf-8")
                driver.get(Path("page.html").resolve().as_uri())
                driver.find_element(By.TAG_NAME, "svg").screenshot(str(output / picture))
        os.chdir(ASSETS)
    return 0


def _svg(board: Board) -> str:
    """Returns the screen as rich draws a terminal."""
    last = max((run.last_at or 0) for run in board.runs.values()) / 1000
    console = Console(record=True, width=SIZE[0], file=io.StringIO(), force_terminal=True, highlight=False)
    for row in draw(board, View(span=2), SIZE, max(last, time.time())):
        console.print(Text.assemble(*((span.text, STYLES.get(span.style, "")) for span in row)))
    return console.export_svg(title="mlflow-sysmetrics watch")


if __name__ == "__main__":
    raise SystemExit(main())
