"""What a program passes is checked where it passes it, with an error that says what to do."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mlflow_sysmetrics
from mlflow_sysmetrics.daemon import process
from mlflow_sysmetrics.daemon.arguments import check_started_at, check_timeout, check_tracking_uri
from mlflow_sysmetrics.errors import SettingsError

NO_STRINGS = [None, 7, 7.0, True, b"run", ["run"], SimpleNamespace(info=1)]
NO_RUN_IDS = ["", "  ", "a\nb", "a\x00", "\ud800"]
NO_URIS = [
    "",
    " ",
    "http://",
    "https:///path",
    "http:",
    "http://user:secret@",
    "http://host\n",
    "http://h:port",
]
NO_SERVERS = [7, True, b"http://host", ["http://host"], {"uri": "http://host"}]


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_daemon(_: object) -> None:
        raise AssertionError("the argument was accepted")

    monkeypatch.setattr(process, "_daemon_of_process", no_daemon)


@pytest.mark.parametrize("function", ["attach", "MetricRecorder", "SystemMetricsLogger"])
@pytest.mark.parametrize("run_id", [*NO_STRINGS, *NO_RUN_IDS], ids=repr)
def test_a_run_id_is_checked(function: str, run_id: Any) -> None:
    if run_id is None and function != "attach":
        return  # the active run
    error = TypeError if run_id in NO_STRINGS else ValueError
    with pytest.raises(error, match=r"run_id must be .*such as run.info.run_id, got ") as raised:
        getattr(mlflow_sysmetrics, function)(run_id=run_id)
    assert repr(run_id) in str(raised.value)


@pytest.mark.parametrize("function", ["attach", "MetricRecorder", "SystemMetricsLogger"])
@pytest.mark.parametrize("uri", [*NO_SERVERS, *NO_URIS], ids=repr)
def test_a_tracking_uri_is_checked(function: str, uri: Any) -> None:
    error = TypeError if uri in NO_SERVERS else SettingsError
    with pytest.raises(error, match=r"tracking_uri must .*such as http://tracking:5000") as raised:
        getattr(mlflow_sysmetrics, function)(run_id="run", tracking_uri=uri)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "uri",
    ["http://host", "https://u:p@h:1/x", "sqlite:///a.db", "databricks", "databricks://p", "./mlruns", "x"],
)
def test_any_uri_of_mlflow_is_accepted(uri: str) -> None:
    assert check_tracking_uri(uri) == uri


def test_a_path_is_accepted_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_tracking_uri(Path("mlruns")) == str(tmp_path / "mlruns")


@pytest.mark.parametrize("timeout", ["5", b"5", True, [5], object(), 5j])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds, or None"):
        mlflow_sysmetrics.flush(timeout)


def test_a_timeout_is_not_nan() -> None:
    with pytest.raises(SettingsError, match="got nan"):
        mlflow_sysmetrics.flush(math.nan)


@pytest.mark.parametrize("timeout", [None, 0, 1.5, math.inf, -0.3])
def test_a_deadline_that_has_passed_is_a_timeout(timeout: float | None) -> None:
    assert check_timeout(timeout) == timeout


@pytest.mark.parametrize("started_at", ["now", 1.5, True])
def test_a_start_is_an_integer(started_at: Any) -> None:
    with pytest.raises(TypeError, match="started_at must be an integer, milliseconds since 1970"):
        mlflow_sysmetrics.attach("run", started_at=started_at)


@pytest.mark.parametrize("started_at", [-1, 2**63])
def test_a_start_is_a_time(started_at: int) -> None:
    with pytest.raises(SettingsError, match="started_at must be milliseconds since 1970"):
        check_started_at(started_at)


@pytest.mark.parametrize("settings", [{}, "fast", 7])
def test_settings_are_settings(settings: Any) -> None:
    with pytest.raises(TypeError, match=r"settings must be Settings\(...\), got "):
        mlflow_sysmetrics.attach("run", settings=settings)
