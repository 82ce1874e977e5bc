"""What a `LocalServer` says about arguments that make no sense, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.server import LocalServer
from mlflow_sysmetrics.server.auth_file import write_auth_file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"allowed_hosts": "mlflow"}, "it must be a list such as ['mlflow']"),
        ({"allowed_hosts": ["a b"]}, "allowed_hosts has 'a b'"),
        ({"port": 99_999}, "port is 99999"),
        ({"workers": 0}, "workers is 0"),
        ({"start_timeout": 0}, "start_timeout is 0"),
        ({"start_timeout": "2m"}, "start_timeout is '2m'"),
        ({"allowed_hosts": None}, "allowed_hosts is None"),
        ({"host": 127}, "host is 127"),
        ({"backend_store_uri": Path("runs.db")}, "it must be text such as 'sqlite:////PATH.db'"),
        ({"environ": {"AWS_MAX_ATTEMPTS": 3}}, "environ has 'AWS_MAX_ATTEMPTS', which must map text to text"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        LocalServer(**arguments)
    assert said in str(raised.value)


def test_a_server_that_does_not_run_has_no_address() -> None:
    with pytest.raises(RuntimeError, match=r"not running; use it in a with block, or call start\(\)"):
        _ = LocalServer().url


def test_what_does_not_run_can_be_stopped() -> None:
    LocalServer().stop()


def test_what_is_no_database_leaves_no_directory_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(SettingsError, match="no database"):
        LocalServer("./mlruns").start()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_users_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    auth = write_auth_file(tmp_path, "50%-of-a-p4ssword")
    path = Path(auth.config_path)
    assert path.stat().st_mode & 0o077 == 0
    assert "50%%-of" in path.read_text()  # which MLflow reads as one "%"
    assert len(auth.secret_key) >= 32


@pytest.mark.parametrize("password", [" a-long-p4ssword", "a-long\n-p4ssword", 123_456_789_012])
def test_a_password_that_mlflow_would_read_as_another_is_said(tmp_path: Path, password: Any) -> None:
    with pytest.raises(SettingsError, match="printable text"):
        write_auth_file(tmp_path, password)


def test_a_password_that_is_too_short_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 12 characters"):
        write_auth_file(tmp_path, "short")
