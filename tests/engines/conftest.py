"""Runs a program on an engine, and reads what its run has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import make_tables
from programs import PATIENT, QUIET, Store
from ray_settings import RAY

PATIENCE = 600  # two raylets, or a JVM with its workers, on two busy cores


@pytest.fixture
def store(tmp_path: Path) -> Store:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    make_tables(uri)
    return Store(uri)


@pytest.fixture
def on_engine(store: Store, tmp_path: Path) -> Callable[[str], list[str]]:
    """Runs a program and returns the lines that it prints after "found:"."""

    def run(code: str) -> list[str]:
        path = tmp_path / "program.py"
        path.write_text(code)
        environ = {
            **os.environ,
            **QUIET,
            **PATIENT,
            **RAY,
            "MLFLOW_TRACKING_URI": store.uri,
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "RESULTS": str(tmp_path / "results"),
        }
        done = subprocess.run(
            [sys.executable, path],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "mlflow-sysmetrics" not in done.stderr, done.stderr[-4000:]
        return [line.partition("found:")[2].strip() for line in done.stdout.splitlines() if "found:" in line]

    return run
