"""Status files in a directory: replaced atomically, read back, and never an obstacle to training."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from mlflow_sysmetrics import preflight
from mlflow_sysmetrics.errors import TrackingURIError
from mlflow_sysmetrics.preflight.status_files.documents import JobStatus, RunInfo
from mlflow_sysmetrics.preflight.status_files.files import INFO_FILE, STATUS_FILE, StatusFiles, read_status
from mlflow_sysmetrics.preflight.status_files.target import ArtifactStore, LocalDirectory, open_target

WAITING = JobStatus(stage="waiting", step=1)
FAILED = JobStatus(stage="failed", step=1, error="no response")
RUN = RunInfo(run_id="0" * 32, experiment_id="7", experiment_name="mnist", tracking_uri="sqlite:///runs.db")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.fixture
def file_in_the_way(tmp_path: Path) -> Path:
    """A path at which no directory can be created, even by root."""
    path = tmp_path / "taken"
    path.write_text("")
    return path / "status"


def test_a_written_status_can_be_read(tmp_path: Path) -> None:
    StatusFiles(tmp_path).write_status(FAILED)
    assert read_status(tmp_path).error == "no response"


def test_each_stage_replaces_the_one_before(tmp_path: Path) -> None:
    files = StatusFiles(tmp_path)
    files.write_status(WAITING)
    files.write_status(FAILED)
    assert read_status(tmp_path).stage == "failed"


def test_a_missing_directory_is_created(tmp_path: Path) -> None:
    StatusFiles(tmp_path / "jobs" / "1").write_status(WAITING)
    assert (tmp_path / "jobs" / "1" / STATUS_FILE).is_file()


def test_no_temporary_file_is_left_in_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    files = StatusFiles(folder)
    files.write_status(WAITING)
    files.write_info(RUN)
    assert sorted(one.name for one in folder.iterdir()) == [INFO_FILE, STATUS_FILE]


def test_the_info_file_of_an_earlier_program_is_removed(tmp_path: Path) -> None:
    StatusFiles(tmp_path).write_info(RUN)
    StatusFiles(tmp_path).forget_info()
    assert not (tmp_path / INFO_FILE).exists()


def test_a_missing_info_file_is_not_reported(file_in_the_way: Path, caplog: pytest.LogCaptureFixture) -> None:
    StatusFiles(file_in_the_way).forget_info()
    assert not warnings_in(caplog)


def test_an_info_file_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / INFO_FILE).mkdir()
    files = StatusFiles(tmp_path)
    files.forget_info()
    files.write_status(WAITING)
    assert "earlier run" in warnings_in(caplog)[0]


def test_the_info_file_of_an_earlier_program_is_removed_from_a_store(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri())  # MLflow treats it like any other store
    store.write(INFO_FILE, "{}", last=False)
    store.remove(INFO_FILE)
    assert not (tmp_path / INFO_FILE).exists()


def test_a_failed_preflight_removes_the_info_file_of_an_earlier_program(tmp_path: Path) -> None:
    StatusFiles(tmp_path).write_info(RUN)
    with pytest.raises(TrackingURIError):
        preflight(tracking_uri="", status_path=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [STATUS_FILE]


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE / "in-the-way").mkdir(parents=True)
    StatusFiles(tmp_path).write_status(WAITING)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.heavy
def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    files = StatusFiles(tmp_path)
    files.write_status(WAITING)
    over = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not over.is_set():
            seen.append(read_status(tmp_path).stage)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        files.write_status(FAILED)
        files.write_status(WAITING)
    over.set()
    reader.join()
    assert set(seen) <= {"waiting", "failed"}


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StatusFiles("job")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    files.write_status(FAILED)
    assert read_status(tmp_path / "job").stage == "failed"


@pytest.mark.parametrize("target", [None, ""])
def test_without_a_target_nothing_is_written(target: str | None, tmp_path: Path) -> None:
    files = StatusFiles(target)
    files.write_status(FAILED)
    files.write_info(RUN)
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_the_file_means_its_directory(tmp_path: Path) -> None:
    StatusFiles(tmp_path / STATUS_FILE).write_status(FAILED)
    assert (tmp_path / STATUS_FILE).is_file()
    assert read_status(tmp_path / STATUS_FILE) == read_status(tmp_path)


def test_a_file_uri_is_a_directory(tmp_path: Path) -> None:
    StatusFiles((tmp_path / "a b").as_uri()).write_status(FAILED)
    assert read_status(tmp_path / "a b").stage == "failed"
    assert read_status((tmp_path / "a b").as_uri()).stage == "failed"


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "any").write_text("")
    StatusFiles(tmp_path).write_status(FAILED)
    assert (tmp_path / STATUS_FILE).stat().st_mode == (tmp_path / "any").stat().st_mode


def test_text_that_is_not_valid_unicode_is_written(tmp_path: Path) -> None:
    StatusFiles(tmp_path).write_status(JobStatus(stage="failed", error="no such file: \udcff"))
    assert read_status(tmp_path).error == "no such file: ?"


def test_a_failed_write_warns_once(file_in_the_way: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = StatusFiles(file_in_the_way)
    files.write_status(WAITING)
    files.write_info(RUN)
    files.write_status(FAILED)
    (said,) = warnings_in(caplog)
    assert f"{STATUS_FILE} could not be written to {file_in_the_way}" in said
    assert "The training continues without it." in said


@pytest.mark.parametrize("target", [3, b"job", "a\0b", Path("gs://bucket/job")])
def test_an_invalid_target_is_a_warning(target: object, caplog: pytest.LogCaptureFixture) -> None:
    files = StatusFiles(target)  # type: ignore[arg-type]
    files.write_status(FAILED)
    assert len(warnings_in(caplog)) == 1


def test_a_path_made_from_a_uri_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    StatusFiles(Path("gs://bucket/job")).write_status(FAILED)
    assert "pass the URI as a string" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["gs://b/j", "s3://b/j", "abfss://c@a.dfs.core.windows.net/j", "dbfs:/j"])
def test_a_uri_goes_to_mlflows_artifact_repositories(uri: str) -> None:
    assert isinstance(open_target(uri), ArtifactStore)


@pytest.mark.parametrize("path", ["job", "/jobs/1", "./a:b", r"C:\jobs\1", "C:/jobs/1", "~/job"])
def test_a_path_is_a_directory(path: str) -> None:
    assert isinstance(open_target(path), LocalDirectory)


def test_the_password_of_a_store_is_not_shown() -> None:
    assert open_target("sftp://anna:hunter2@host/jobs").shown == "sftp://host/jobs"


@pytest.mark.parametrize("path", ["job", "job/mlflow_status.json"])
def test_reading_a_missing_status_raises_file_not_found(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=STATUS_FILE):
        read_status(path)


def test_a_file_of_any_name_is_read(tmp_path: Path) -> None:
    StatusFiles(tmp_path).write_status(FAILED)
    copy = (tmp_path / STATUS_FILE).rename(tmp_path / "copy")
    assert read_status(copy).stage == "failed"
    assert read_status(str(copy.rename(tmp_path / "copy.json"))).stage == "failed"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it must be valid JSON"),
        (b'{"schema": 1, "sta', "it must be valid JSON"),
        (b"\xff\xfe", "it must be UTF-8 text"),
        (b"[]", "it must be a JSON object"),
        (
            json.dumps({"schema": 1, "stage": "lost"}).encode(),
            '"stage" must be one of initializing, waiting, initialized, failed, completed, got',
        ),
    ],
)
def test_an_invalid_status_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / STATUS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=problem) as raised:
        read_status(tmp_path)
    assert str(tmp_path / STATUS_FILE) in str(raised.value)


@pytest.mark.parametrize("missing", [True, False])
def test_one_warning_says_what_keeps_the_files_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ImportError("No module named 'boto3'")

    files = StatusFiles(tmp_path)
    monkeypatch.setattr(LocalDirectory, "remove", fails)
    if missing:
        monkeypatch.setattr(LocalDirectory, "write", fails)
    files.forget_info()
    assert warnings_in(caplog) == []
    for status in (WAITING, FAILED):
        files.write_status(status)
    [said] = warnings_in(caplog)
    assert (
        "could not be written" if missing else "could not be removed and may describe an earlier run"
    ) in said


def test_an_info_that_is_replaced_need_not_be_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise PermissionError

    files = StatusFiles(tmp_path)
    monkeypatch.setattr(LocalDirectory, "remove", fails)
    files.forget_info()
    files.write_info(RUN)
    files.write_status(WAITING)
    assert warnings_in(caplog) == []
