"""Checks MLflow before 2.8: tags, one warning, metrics through attach(). Run by `nox -s tags_only`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import time
import mlflow, mlflow_sysmetrics
with mlflow.start_run() as run:
    with mlflow_sysmetrics.attach(run.info.run_id):
        time.sleep(0.3)
with mlflow.start_run() as other:
    pass
attached, left_alone = (mlflow.get_run(one.info.run_id).data for one in (run, other))
assert "sys.cpu" in attached.tags, attached.tags
assert attached.tags["sys.metrics"] == "on", attached.tags
assert "system/cpu_utilization_percentage" in attached.metrics, attached.metrics
assert "sys.cpu" in left_alone.tags, left_alone.tags
assert left_alone.tags["sys.metrics"] == f"unavailable: MLflow {mlflow.__version__}", left_alone.tags
assert not left_alone.metrics, left_alone.metrics
print(mlflow.__version__)
"""

with tempfile.TemporaryDirectory() as folder:
    environ = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{Path(folder) / 'runs.db'}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=folder)
    warned = done.stderr.count("System metrics are not logged: MLflow")
    if done.returncode or warned != 1:
        sys.exit(f"exit status {done.returncode}, {warned} warnings\n{done.stdout}{done.stderr}")
    sys.stdout.write(f"MLflow {done.stdout.strip()}: tags, one warning, metrics through attach()\n")
