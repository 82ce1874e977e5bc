"""`scripts/debug_run.py` prints tables or JSON, and a reason with a remedy if something does not work."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import forks
import pytest
from programs import HOST_METRICS, PATIENT

from mlflow_sysmetrics.collectors import COLLECTORS, load_classes
from mlflow_sysmetrics.collectors.catalogue.cpu_and_memory import PROCESS_USS
from mlflow_sysmetrics.samples import Kind

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "scripts" / "debug_run.py"
SHORT = ("--seconds", "2", "--interval", "0.3")
LONGEST_SECONDS = 240


def environment(**variables: str) -> dict[str, str]:
    """Returns this process's environment without variables that change a run, plus the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "COLUMNS"))}
    return kept | PATIENT | variables


def debug_run(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in a folder, in which it creates its SQLite file."""
    arguments = [str(SCRIPT), *options]
    return forks.run(arguments, cwd=folder, env=environment(**variables), timeout=LONGEST_SECONDS)


def run_states(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow-sysmetrics-debug.db")) as database:
        return [state for (state,) in database.execute("select status from runs")]


def test_it_prints_stored_tags_and_metrics_and_how_to_see_them(tmp_path: Path) -> None:
    done = debug_run(tmp_path, *SHORT)

    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("sys.cpu_cores", "system/cpu_utilization_percentage", "MB", "It works: "):
        assert word in done.stdout
    for key in HOST_METRICS:
        assert f" {key} " in done.stdout  # whole, for grep
    assert "mlflow ui --backend-store-uri sqlite:///mlflow-sysmetrics-debug.db" in done.stdout
    assert "alembic" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert run_states(tmp_path) == ["FINISHED"]


def test_json_has_every_host_metric_with_its_unit_and_is_alone_on_stdout(tmp_path: Path) -> None:
    done = debug_run(tmp_path, *SHORT, "--json")
    report = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert report["ok"] is True
    assert int(report["tags"]["sys.cpu_cores"]["value"]) >= 1
    described = {
        metric.name: metric for collector in load_classes(COLLECTORS) for metric in collector.metrics
    }
    for key in HOST_METRICS:
        series = report["metrics"][key]
        metric = described[key.removeprefix("system/")]
        assert series["unit"] == metric.unit
        # A rate needs two ticks, and a busy machine may have only the first and the last.
        assert series["points"] >= (1 if metric is PROCESS_USS or metric.kind is Kind.RATE else 2)
        assert series["min"] <= series["mean"] <= series["max"]
    assert report["metrics"]["system/cpu_utilization_percentage"]["max"] > 0


def test_a_disabled_plugin_is_named_with_the_variable(tmp_path: Path) -> None:
    done = debug_run(tmp_path, *SHORT, MLFLOW_RUN_CONTEXT_PROVIDER="none")

    assert done.returncode == 1
    assert "no system metric is in the store" in done.stdout
    assert "MLFLOW_RUN_CONTEXT_PROVIDER=none switches the plugin off: unset it" in done.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--seconds", "0"), "--seconds must be from 1 to 3600 seconds, got '0'"),
        (("--seconds", "nan"), "from 1 to 3600 seconds, got 'nan'"),
        (("--seconds", "six"), "--seconds must be seconds such as 6 or 2.5, got 'six'"),
        (("--interval", "-1"), "--interval must be a number from 0.1 to 3600, got -1"),
        (("--seconds", "2", "--interval", "1"), "--seconds must be at least 3 for points every 1 s, got 2"),
    ],
)
def test_an_invalid_option_is_named_and_nothing_is_created(
    tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    done = debug_run(tmp_path, *options)

    assert done.returncode == 2
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("uri", "reason"), [("http://127.0.0.1:1", "refused"), ("http://[::1", "malformed")])
def test_an_address_without_a_server_fails_at_once_with_the_remedy(
    tmp_path: Path, uri: str, reason: str
) -> None:
    # With MLflow's seven retries the script would time out.
    done = debug_run(tmp_path, *SHORT, MLFLOW_TRACKING_URI=uri)

    assert done.returncode == 1
    assert reason in done.stdout
    assert "unset it to use a local SQLite file" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_source_tree_that_is_not_installed_is_reported(tmp_path: Path) -> None:
    without_entry_points = (
        "import importlib.metadata as metadata, sys; metadata.entry_points = lambda **_: (); "
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); import debug_run; sys.exit(debug_run.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_entry_points],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )

    assert done.returncode == 1
    assert "pip install --force-reinstall" in done.stdout
    assert "pip install mlflow-sysmetrics" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_an_interrupt_ends_the_run_as_killed_without_a_traceback(tmp_path: Path) -> None:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with forks.popen([str(SCRIPT), "--seconds", "60"], cwd=tmp_path, env=environment(), **options) as process:
        assert process.stderr is not None
        # MLflow 2.8 may print a deprecation warning first.
        assert any(line.startswith("Working for ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LONGEST_SECONDS)

    assert process.returncode == 130
    assert "The run has ended as KILLED." in errors
    assert "Traceback" not in errors
    assert run_states(tmp_path) == ["KILLED"]
