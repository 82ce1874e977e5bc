"""How many of our modules a program loads, and that every public name can be imported where README has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from counting_server import CountingServer

TESTS = Path(__file__).parents[1]
MOST_BY_IMPORT_MLFLOW = 8  # errors, monitor, providers, runtime.clock, samples, settings, and two packages
MOST_BY_FIRST_START_RUN = 40  # the facts for its tags; a thread loads the daemon
MOST_BY_FIRST_ATTACH = 132  # with these; a dozen are for the summary, and at the end is too late
PROGRAM = """
import sys

def ours():
    return sorted(name for name in sys.modules if name.partition(".")[0] == "mlflow_sysmetrics")

import mlflow
print(*ours())
import mlflow_sysmetrics
from mlflow_sysmetrics.daemon import launch
defer, launch.defer = launch.defer, lambda job: True
with mlflow.start_run():
    print(*ours())
    print("mlflow.system_metrics.metrics.cpu_monitor" in sys.modules)
launch.defer = defer
run = mlflow.MlflowClient().create_run("0")
from mlflow_sysmetrics.daemon.daemon import Daemon
Daemon._recover = lambda _: False  # a thread beside imports what it needs
with mlflow_sysmetrics.attach(run.info.run_id):
    print(*ours())
"""


def run(argv: list[str], **environ: str) -> str:
    quiet = {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    done = subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, **quiet, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_mlflow_and_the_first_attach_load_few_of_our_modules(
    server: CountingServer, tmp_path: Path
) -> None:
    spool = str(tmp_path / "spool")
    printed = run(["-c", PROGRAM], MLFLOW_TRACKING_URI=server.url, MLFLOW_SYSMETRICS_SPOOL_DIR=spool)
    # MLflow 2 prints where the run is.
    lines = [line for line in printed.splitlines() if " at: http" not in line]
    by_import, by_start, mlflows_own, by_attach = (line.split() for line in lines[:4])
    assert "mlflow_sysmetrics.monitor" in by_import
    assert "mlflow_sysmetrics.facts.linux" in by_start or sys.platform != "linux"
    assert "mlflow_sysmetrics.daemon.process" not in by_start
    assert mlflows_own == ["False"]
    assert "mlflow_sysmetrics.daemon.daemon" in by_attach
    assert len(by_import) <= MOST_BY_IMPORT_MLFLOW, by_import
    assert len(by_start) <= MOST_BY_FIRST_START_RUN, (len(by_start), by_start)
    assert len(by_attach) <= MOST_BY_FIRST_ATTACH, by_attach


def test_every_public_name_can_be_imported() -> None:
    run([str(TESTS / "typing/public_names.py")])
