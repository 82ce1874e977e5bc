"""A tracked run ends like its body, and an untracked body is not entered."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from chaos_server import free_port
from mlflow_double import Answer, Double

from mlflow_sysmetrics import tracked_run
from mlflow_sysmetrics.errors import RunStartError, ServerUnreachableError
from mlflow_sysmetrics.mlflow_api import active_runs
from mlflow_sysmetrics.preflight import read_status
from mlflow_sysmetrics.runtime.bounded_calls import CallTimeout

pytest_plugins = ["preflight_fixtures"]


def run_file(files: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files / "mlflow_info.json").read_text(encoding="utf-8"))
    return found


def test_the_body_logs_to_the_run_and_it_ends_finished(double: Double, files: Path) -> None:
    with tracked_run(
        "ships", "first", tracking_uri=double.url, status_path=files, log_system_metrics=False
    ) as run:
        mlflow.log_metrics({"loss": 0.5})
    logged = double.runs[run.info.run_id]["data"]["metrics"]
    assert double.statuses() == ["FINISHED"]
    assert {"preflight/ok", "loss"} == {one["key"] for one in logged}
    assert read_status(files).stage == "completed"
    assert (run_file(files)["status"], run_file(files)["run_name"]) == ("FINISHED", "first")
    assert run_file(files)["ended_at"] is not None


@pytest.mark.parametrize(
    ("raised", "status", "stage"),
    [
        (ZeroDivisionError("no data"), "FAILED", "failed"),
        (KeyboardInterrupt(), "KILLED", "failed"),
        (SystemExit(3), "FAILED", "failed"),
        (SystemExit("bad"), "FAILED", "failed"),
        (SystemExit(0), "FINISHED", "completed"),
        (SystemExit(None), "FINISHED", "completed"),
    ],
)
def test_an_error_of_the_body_decides_how_the_run_ends(
    double: Double, files: Path, raised: BaseException, status: str, stage: str
) -> None:
    with (
        pytest.raises(type(raised)),
        tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False),
    ):
        raise raised
    assert double.statuses() == [status]
    assert (read_status(files).stage, run_file(files)["status"]) == (stage, status)


def test_an_error_of_the_body_precedes_one_of_the_server(
    double: Double, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def train() -> None:
        with tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False):
            double.answers("runs/update", Answer(500))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert read_status(files).error_type == "ZeroDivisionError"


def test_an_active_run_is_reported_before_another_is_created(double: Double) -> None:
    mlflow.set_tracking_uri(double.url)
    with (
        mlflow.start_run(log_system_metrics=False),
        pytest.raises(RunStartError, match=r"mlflow\.end_run"),
        tracked_run("ships", tracking_uri=double.url),
    ):
        pass
    assert len(double.runs) == 1


@pytest.mark.parametrize(("raised", "status"), [(None, "FINISHED"), (ZeroDivisionError(), "FAILED")])
def test_a_child_run_left_open_ends_like_its_parent(
    double: Double, files: Path, raised: Exception | None, status: str
) -> None:
    with (
        contextlib.suppress(ZeroDivisionError),
        tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False),
    ):
        mlflow.start_run(nested=True, log_system_metrics=False)
        if raised is not None:
            raise raised
    mlflow.end_run()  # as at exit
    assert double.statuses() == [status, status]
    assert run_file(files)["status"] == status


def test_a_run_that_the_body_ends_as_failed_is_failed_in_the_files(double: Double, files: Path) -> None:
    with tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False):
        mlflow.end_run("FAILED")
    assert double.statuses() == ["FAILED"]
    assert (read_status(files).stage, run_file(files)["status"]) == ("failed", "FAILED")


def test_a_body_that_raises_after_ending_its_run_has_failed(double: Double, files: Path) -> None:
    with (
        contextlib.suppress(ZeroDivisionError),
        tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False),
    ):
        mlflow.end_run()
        raise ZeroDivisionError
    assert (double.statuses(), run_file(files)["status"]) == (["FAILED"], "FAILED")


def test_a_run_that_cannot_be_ended_is_not_reported_as_ended(
    double: Double, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def train() -> None:
        with tracked_run("ships", tracking_uri=double.url, status_path=files, log_system_metrics=False):
            double.answers("runs/update", Answer(500))

    with pytest.raises(mlflow.MlflowException):
        train()
    assert read_status(files).stage == "failed"
    assert (run_file(files)["status"], run_file(files)["ended_at"]) == ("RUNNING", None)


def test_a_server_that_cannot_update_runs_is_a_run_start_error(double: Double, files: Path) -> None:
    double.answers("runs/update", Answer(500))
    with (
        pytest.raises(RunStartError, match="may be left RUNNING"),
        tracked_run("ships", tracking_uri=double.url, max_retries=2, backoff=(0.1,), status_path=files),
    ):
        pass
    assert double.count("runs/update") == 3  # two tries, and one to end the run
    assert (read_status(files).stage, (files / "mlflow_info.json").exists()) == ("failed", False)


def test_an_error_of_mlflow_at_the_start_of_a_run_is_replaced_by_ours(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run_id: str, seconds: float) -> None:
        raise mlflow.MlflowException(f"{run_id} {seconds} s3cr3t-value")

    monkeypatch.setattr(active_runs, "start_run", refuse)
    url = double.url.replace("//", "//anna:s3cr3t-value@")
    with (
        pytest.raises(RunStartError) as raised,
        tracked_run("ships", tracking_uri=url, max_retries=1),
    ):
        pass
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert "s3cr3t" not in str(raised.value)
    assert double.statuses() == ["FAILED"]


def test_a_start_that_hangs_ends_with_the_deadline(
    double: Double, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(run_id: str, seconds: float) -> None:
        assert seconds <= 20
        raise CallTimeout

    monkeypatch.setattr(active_runs, "start_run", hang)
    with (
        pytest.raises(RunStartError, match="no answer within"),
        tracked_run("ships", tracking_uri=double.url, status_path=files, deadline=20, max_retries=1),
    ):
        pass
    assert (read_status(files).stage, read_status(files).step) == ("failed", 3)


def test_the_body_is_not_entered_without_a_server(double: Double, files: Path) -> None:
    entered = False
    double.answers("/health", Answer(503))
    with (
        pytest.raises(ServerUnreachableError),
        tracked_run("ships", tracking_uri=double.url, max_retries=1, status_path=files),
    ):
        entered = True
    assert not entered


def test_a_script_whose_server_is_down_exits_before_its_first_step(tmp_path: Path, files: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from mlflow_sysmetrics import tracked_run\n"
        "with tracked_run('ships', tracking_uri=sys.argv[1], max_retries=2, backoff=(0.1,), status_path=sys.argv[2]):\n"
        "    print('first step')\n"
    )
    url = f"http://anna:s3cr3t-value@127.0.0.1:{free_port()}"
    ended = subprocess.run(
        [sys.executable, script, url, files], capture_output=True, text=True, check=False, timeout=120
    )
    status = read_status(files)
    assert ended.returncode != 0
    assert "first step" not in ended.stdout
    assert (status.stage, status.error_type, status.step) == ("failed", "ServerUnreachableError", 1)
    assert "Connection refused" in str(status.error)
    assert "s3cr3t" not in ended.stdout + ended.stderr + (files / "mlflow_status.json").read_text()
