"""The package itself: what importing it costs, what it offers, who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mlflow_sysmetrics

SOURCE = Path(__file__).parents[2] / "src" / "mlflow_sysmetrics"


def test_every_public_name_can_be_had() -> None:
    for name in mlflow_sysmetrics.__all__:
        assert getattr(mlflow_sysmetrics, name).__doc__
    assert dir(mlflow_sysmetrics) == sorted(mlflow_sysmetrics.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mlflow_sysmetrics.nothing


def test_importing_starts_nothing_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, threading, mlflow_sysmetrics, mlflow_sysmetrics.daemon;"
        "from mlflow_sysmetrics import MetricRecorder, SystemMetricsLogger;"
        "heavy = {'mlflow', 'pynvml', 'torch', 'pandas', 'numpy', 'requests', 'optuna', 'ignite'} & set(sys.modules);"
        "assert not heavy, heavy; assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("collectors/probe.py", "import mlflow"),
        ("collectors/probe.py", "from mlflow_sysmetrics.daemon import attach"),
        ("collectors/probe.py", "import subprocess"),
        ("facts/probe.py", "from mlflow_sysmetrics import collectors"),
        ("facts/probe.py", "import mlflow.tracking"),
        ("facts/probe.py", "import subprocess"),
        ("daemon/probe.py", "from mlflow_sysmetrics.providers import SysMetricsRunContextProvider"),
        ("daemon/probe.py", "import mlflow"),
        ("daemon/probe.py", "import pynvml"),
        ("cli/probe.py", "import mlflow"),
        ("cli/probe.py", "from mlflow_sysmetrics.monitor import install"),
        ("samples.py", "from mlflow_sysmetrics.daemon import attach"),
        ("settings.py", "import mlflow_sysmetrics.collectors"),
        ("machine/host.py", "from mlflow import start_run"),
        ("training/probe.py", "from mlflow_sysmetrics.cli import check"),
        ("training/probe.py", "from mlflow_sysmetrics.monitor import install"),
        ("training/probe.py", "import subprocess"),
        ("daemon/probe.py", "from mlflow_sysmetrics.training import recorder"),
        ("preflight/probe.py", "from mlflow_sysmetrics.training import recorder"),
        ("preflight/probe.py", "from mlflow_sysmetrics.daemon import attach"),
        ("mlflow_api/probe.py", "from mlflow_sysmetrics.preflight import preflight"),
        ("mlflow_api/probe.py", "from mlflow_sysmetrics.collectors import COLLECTORS"),
        ("machine/probe.py", "from mlflow_sysmetrics.facts import host_facts"),
        ("runtime/probe.py", "import mlflow"),
        ("server/probe.py", "from mlflow_sysmetrics.training import recorder"),
    ],
)
def test_lint_holds_the_floors_apart(file: str, line: str) -> None:
    """An import that runs uphill is a lint error, on every floor."""
    ruff = [sys.executable, "-m", "ruff", "check", "--select=TID251", "--no-cache", "--stdin-filename"]
    found = subprocess.run(
        [*ruff, str(SOURCE / file), "-"], input=f"{line}\n", capture_output=True, text=True, check=False
    )
    assert "TID251" in found.stdout, found.stdout + found.stderr
