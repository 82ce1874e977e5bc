"""`doctor` with a real MLflow: what it finds, that it changes nothing, and what it never shows."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from chaos_server import free_port
from command_line import command, document

pytest_plugins = ["tracking_servers"]
SECTIONS = ["installed", "collected", "settings", "tracking_server", "journals"]


def states(found: Any, section: str) -> dict[str, str]:
    return {one["name"]: one["state"] for one in found[section]}


def finding(found: Any, section: str, name: str) -> Any:
    return next(one for one in found[section] if one["name"] == name)


def test_a_working_installation_has_no_problems(sqlite_server: str) -> None:
    found = document("doctor", MLFLOW_TRACKING_URI=sqlite_server)
    assert found["ok"] is True
    assert [section for section in SECTIONS if found[section]] == SECTIONS
    assert finding(found, "installed", "MLflow")["version"] == version("mlflow")
    assert set(states(found, "installed").values()) == {"ok"}
    assert states(found, "tracking_server") == dict.fromkeys(
        ("tracking URI", "reachable", "version", "access"), "ok"
    )


def test_collected_series_include_rates() -> None:
    found = document("doctor")
    series = [key for one in found["collected"] for key in one.get("series", [])]
    assert "system/cpu_utilization_percentage" in series
    assert all(one["text"] for one in found["collected"])


def test_a_closed_port_is_reported_with_its_remedy() -> None:
    done = command("doctor", status=1, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert "✗ reachable     Connection refused" in done.stdout
    assert "1 thing is wrong: reachable." in done.stdout


def test_a_wrong_password_is_found_though_health_is_green(guarded_server: str) -> None:
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wr0ng-p4ssword"}
    done = command("doctor", "--json", status=1, MLFLOW_TRACKING_URI=guarded_server, **user)
    assert '"status_code": 401' in done.stdout
    assert "basic authentication" in done.stdout
    assert "wr0ng" not in done.stdout + done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_shown(guarded_uri: str, form: tuple[str, ...]) -> None:
    done = command("doctor", *form, MLFLOW_TRACKING_URI=guarded_uri, MLFLOW_TRACKING_TOKEN="t0ken-of-mine")
    text = done.stdout + done.stderr
    assert "the user and password of the tracking URI" in " ".join(text.split())
    assert "s3cr3t" not in text
    assert "t0ken" not in text


def test_what_the_user_switched_off_is_not_a_problem() -> None:
    found = document("doctor", MLFLOW_RUN_CONTEXT_PROVIDER="none")
    assert states(found, "installed")["Metrics hook"] == "absent"


def test_an_invalid_variable_is_reported_once_and_only_as_a_finding() -> None:
    done = command("doctor", status=1, own_interpreter=True, MLFLOW_SYSMETRICS_SEND_INTERVAL="soon")
    assert "'soon' is ignored, using 10" in done.stdout
    assert "soon" not in done.stderr


def test_an_ascii_output_gets_ascii() -> None:
    done = command("doctor", PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert "  + MLflow" in done.stdout


def test_doctor_creates_no_files(tmp_path: Path) -> None:
    store, spool = tmp_path / "runs.db", tmp_path / "spool"
    found = document(
        "doctor", MLFLOW_TRACKING_URI=f"sqlite:///{store}", MLFLOW_SYSMETRICS_SPOOL_DIR=str(spool)
    )
    assert states(found, "tracking_server")["reachable"] == "note"
    assert not store.exists()
    assert not spool.exists()
