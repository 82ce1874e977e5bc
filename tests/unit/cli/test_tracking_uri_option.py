"""`--tracking-uri` rejects values that no store supports."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sysmetrics.cli.options import check_tracking_uri


@pytest.mark.parametrize(
    "uri",
    [
        "http://tracking:5000",
        "https://me:secret@tracking",
        "sqlite:///runs.db",
        "postgresql+psycopg2://tracking/runs",
        "file:///runs",
        "./mlruns",
        "/mlruns",
        "some/mlruns",
        "~/mlruns",
        "databricks",
        "databricks://profile",
    ],
)
def test_forms_that_mlflow_supports_are_valid(uri: str) -> None:
    check_tracking_uri(uri)


def test_an_existing_directory_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("banana").mkdir()
    check_tracking_uri("banana")


@pytest.mark.parametrize("uri", ["banana", "htp://x", "localhost:5000", ""])
def test_anything_else_is_rejected_with_the_valid_forms(uri: str) -> None:
    with pytest.raises(ValueError, match=r"must be a tracking URI \(http://HOST:PORT") as caught:
        check_tracking_uri(uri)
    assert repr(uri) in str(caught.value)


def test_a_missing_scheme_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"did you mean http://localhost:5000\?"):
        check_tracking_uri("localhost:5000")


@pytest.mark.parametrize("uri", ["htp://me:secret@x", "me:secret@x:5000"])
def test_a_password_is_not_shown(uri: str) -> None:
    with pytest.raises(ValueError, match="must be a tracking URI") as caught:
        check_tracking_uri(uri)
    assert "secret" not in str(caught.value)
