"""The end of a server's log, as errors show it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mlflow_sysmetrics.errors import ServerStartError
from mlflow_sysmetrics.mlflow_api import secrets
from mlflow_sysmetrics.server.launch import log_tail


def test_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(map(str, range(100))))
    assert log_tail(log, 0).splitlines() == [str(number) for number in range(75, 100)]


def test_lines_of_an_earlier_start_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    begin = log.stat().st_size
    with log.open("a") as more:
        more.write("after\n")
    assert log_tail(log, begin) == "after"


def test_an_endless_line_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 10**6)
    assert 1000 < len(log_tail(tmp_path / "log", 0)) < 20_000


def test_no_password_is_shown(tmp_path: Path) -> None:
    uri = "postgresql://anna:s3cr3t-word@db/runs"
    (tmp_path / "log").write_text(f"cannot open {uri} with s3cr3t-word")
    assert "s3cr3t" not in log_tail(tmp_path / "log", 0, uri)


def test_a_missing_log_has_an_empty_tail(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "none", 0) == ""


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ServerStartError("It ended.", "its last words")))
    assert (error.reason, error.log_tail) == ("It ended.", "its last words")
    assert str(error) == "It ended.\n\nIts log ends with:\nits last words"


def test_a_secret_where_the_tail_begins_is_masked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-S3CR3T-w0rd")
    for length in range(16_360, 16_390):
        (tmp_path / "log").write_text("hush-S3CR3T-w0rd" + "." * length)
        assert "w0rd" not in log_tail(tmp_path / "log", 0)


def test_the_secrets_of_the_server_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are in its environment, not in this process's."""
    monkeypatch.setattr(secrets, "_sent", {})
    secrets.remember_environment({"AWS_SECRET_ACCESS_KEY": "s3cr3t", "PATH": "/usr/bin"})
    (tmp_path / "log").write_text("s3cr3t in /usr/bin")
    assert log_tail(tmp_path / "log", 0) == "*** in /usr/bin"
