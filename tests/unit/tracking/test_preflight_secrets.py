"""No credential gets into a text, and no ordinary word is lost from one."""

from __future__ import annotations

import pytest

from mlflow_sysmetrics.tracking.secrets import cleaned

SECRET = "s3cr3t-T0ken.value"  # noqa: S105 - of a test


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"header 'Authorization': 'Basic {SECRET}' was refused",
        f"bearer {SECRET} has expired",
        f"token={SECRET}&x=1",
        f'{{"password": "{SECRET}"}}',
        f"Cookie: {SECRET}",
        f"https://user:{SECRET}@host/path",
        f"https://host/path?X-Goog-Signature={SECRET}",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.s3cr3t",
    ],
)
def test_what_announces_a_secret_is_not_followed_by_it(text: str) -> None:
    assert "s3cr3t" not in cleaned(text)


def test_the_value_of_a_secret_variable_is_cut_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "plainwords")
    assert cleaned("you sent plainwords, who are you?") == "you sent ***, who are you?"


def test_the_password_of_the_tracking_uri_is_cut_as_written_and_as_meant() -> None:
    uri = "https://anna:p%40ssword@host"
    assert cleaned("p%40ssword, p@ssword", uri) == "***, ***"


@pytest.mark.parametrize(
    "text",
    [
        "This program sent basic authentication (MLFLOW_TRACKING_USERNAME).",
        "This program sent a bearer token (MLFLOW_TRACKING_TOKEN).",
        "HTTP 401: password authentication failed",
        "HTTP 403: token expired",
    ],
)
def test_words_about_credentials_stay(text: str) -> None:
    assert cleaned(text) == text
