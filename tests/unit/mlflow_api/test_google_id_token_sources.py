"""gcloud as a source of tokens, played by a script; and the error if there is no source."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.mlflow_api import google_id_token
from mlflow_sysmetrics.mlflow_api.faults import NoIdToken
from mlflow_sysmetrics.mlflow_api.google_id_token import (
    fetch_id_token,
    from_gcloud,
    from_google_auth,
)

SERVER = "https://mlflow.example"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts are of a POSIX shell")


@pytest.fixture
def gcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a script called gcloud is the only command there is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder / "gcloud"


def play(gcloud: Path, *lines: str) -> None:
    gcloud.write_text("\n".join(["#!/bin/sh", 'echo "$@" >> "$0.calls"', *lines, ""]))
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)


def calls(gcloud: Path) -> list[str]:
    return Path(f"{gcloud}.calls").read_text().splitlines()


def test_a_service_account_gets_a_token_for_the_audience(gcloud: Path) -> None:
    play(gcloud, "echo a.b.c")
    assert from_gcloud(SERVER) == "a.b.c"
    assert calls(gcloud) == [f"auth print-identity-token --audiences={SERVER}"]


def test_a_user_who_may_not_name_an_audience_gets_a_token_too(gcloud: Path) -> None:
    play(gcloud, 'case "$*" in *--audiences*) exit 1;; esac', "echo a.b.c")
    assert from_gcloud(SERVER) == "a.b.c"
    assert calls(gcloud)[1:] == ["auth print-identity-token"]


def test_a_gcloud_without_a_login_is_a_reason(gcloud: Path) -> None:
    play(gcloud, "echo hunter2", "exit 1")
    with pytest.raises(Unavailable, match="gcloud failed with exit code 1") as raised:
        from_gcloud(SERVER)
    assert "hunter2" not in str(raised.value)


def test_a_gcloud_that_hangs_is_not_waited_for(gcloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_id_token, "_GCLOUD_SECONDS", 0.1)
    play(gcloud, "while :; do :; done")
    with pytest.raises(Unavailable, match=r"did not finish within 0\.1 s"):
        from_gcloud(SERVER)


def test_a_missing_gcloud_is_a_reason(gcloud: Path) -> None:
    assert not gcloud.exists()
    with pytest.raises(Unavailable, match="gcloud is not on the PATH"):
        from_gcloud(SERVER)


def test_a_missing_google_auth_is_a_reason_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.oauth2.id_token", None)
    with pytest.raises(Unavailable, match="pip install google-auth"):
        from_google_auth(SERVER)


def test_gcloud_is_asked_if_google_auth_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> str:
        raise Unavailable("there is no key file")

    monkeypatch.setattr(google_id_token, "from_google_auth", none)
    monkeypatch.setattr(google_id_token, "from_gcloud", lambda audience: f"for {audience}")
    assert fetch_id_token(SERVER) == f"for {SERVER}"


def test_the_error_names_the_sources_that_were_tried_and_what_to_do(
    gcloud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: str) -> str:
        raise Unavailable("there is no key file")

    assert not gcloud.exists()
    monkeypatch.setattr(google_id_token, "from_google_auth", none)
    with pytest.raises(NoIdToken) as raised:
        fetch_id_token(SERVER)
    said = str(raised.value)
    assert SERVER in said
    assert "google-auth: there is no key file; gcloud: gcloud is not on the PATH" in said
    assert str(raised.value.remedy).endswith("gcloud auth login.")
    assert said.endswith(str(raised.value.remedy))
    assert raised.value.__context__ is None
