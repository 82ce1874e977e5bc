"""Invalid arguments of a `LocalServer` are reported before anything is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.server import LocalServer
from mlflow_sysmetrics.server.config import write_auth_file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"allowed_hosts": "mlflow"}, "allowed_hosts must be a list such as ['mlflow'], got 'mlflow'"),
        ({"allowed_hosts": ["a b"]}, "got 'a b'"),
        ({"port": 99_999}, "port must be an integer from 1 to 65535, got 99999"),
        ({"workers": 0}, "workers must be an integer >= 1, got 0"),
        ({"start_timeout": 0}, "start_timeout must be a number of seconds > 0, got 0"),
        ({"start_timeout": "2m"}, "start_timeout must be a number of seconds > 0, got '2m'"),
        ({"allowed_hosts": None}, "allowed_hosts must be a list such as ['mlflow'], got None"),
        ({"host": 127}, "host must be a name or an IPv4 address to listen on, got 127"),
        (
            {"backend_store_uri": Path("runs.db")},
            "backend_store_uri must be a string such as 'sqlite:////PATH.db' or None, got ",
        ),
        (
            {"environ": {"AWS_MAX_ATTEMPTS": 3}},
            "environ must map strings to strings, got 'AWS_MAX_ATTEMPTS': int",
        ),
    ],
)
def test_an_invalid_argument_is_reported_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        LocalServer(**arguments)
    assert said in str(raised.value)


def test_a_server_that_is_not_running_has_no_url() -> None:
    with pytest.raises(RuntimeError, match=r"not running; use it in a with block, or call start\(\)"):
        _ = LocalServer().url


def test_a_server_that_is_not_running_can_be_stopped() -> None:
    LocalServer().stop()


def test_an_invalid_database_leaves_no_directory_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(SettingsError, match="must be a database"):
        LocalServer("./mlruns").start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows needs a right to make links")
def test_a_link_in_the_place_of_the_auth_file_is_not_followed(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    (tmp_path / "precious").write_text("precious")
    path = Path(write_auth_file(tmp_path, "50%-of-a-p4ssword").config_path)
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    write_auth_file(tmp_path, "50%-of-a-p4ssword")
    assert (tmp_path / "precious").read_text() == "precious"
    assert "p4ssword" in path.read_text()


def test_only_the_owner_can_read_the_auth_file(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's basic authentication needs Flask-WTF")
    auth = write_auth_file(tmp_path, "50%-of-a-p4ssword")
    path = Path(auth.config_path)
    assert path.stat().st_mode & 0o077 == 0
    assert "50%%-of" in path.read_text()  # which MLflow reads as one "%"
    assert len(auth.secret_key) >= 32


@pytest.mark.parametrize("password", [" a-long-p4ssword", "a-long\n-p4ssword", 123_456_789_012])
def test_a_password_that_mlflow_would_read_differently_is_rejected(tmp_path: Path, password: Any) -> None:
    with pytest.raises(SettingsError, match="printable text"):
        write_auth_file(tmp_path, password)


def test_a_short_password_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 12 characters, got 5"):
        write_auth_file(tmp_path, "short")
