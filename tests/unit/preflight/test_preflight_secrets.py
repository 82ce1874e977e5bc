"""Credentials are masked in any text, and ordinary words are not."""

from __future__ import annotations

import base64

import pytest

from mlflow_sysmetrics.mlflow_api import secrets
from mlflow_sysmetrics.mlflow_api.secrets import cleaned, remember_credentials, remember_headers


@pytest.fixture
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets the credentials that a test registers."""
    monkeypatch.setattr(secrets, "_sent", {})


SECRET = "s3cr3t-T0ken.value"


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
def test_a_secret_after_its_label_is_masked(text: str) -> None:
    assert "s3cr3t" not in cleaned(text)


def test_the_value_of_a_secret_variable_is_masked_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "plainwords")
    assert cleaned("you sent plainwords, who are you?") == "you sent ***, who are you?"


def test_the_password_of_the_tracking_uri_is_masked_quoted_and_unquoted() -> None:
    uri = "https://anna:p%40ssword@host"
    assert cleaned("p%40ssword, p@ssword", uri) == "***, ***"


def test_a_user_name_without_a_password_is_masked_like_a_token() -> None:
    assert cleaned("unknown account dapi1234", "https://dapi1234@host") == "unknown account ***"


def test_a_long_user_name_is_masked_like_a_token() -> None:
    assert cleaned("unknown a-token-of-mine", "https://a-token-of-mine:x@host") == "unknown ***"


@pytest.mark.parametrize("uri", ["https://token:dapi1234@host", "postgresql://mlflow@host/runs"])
def test_an_ordinary_user_name_is_not_masked(uri: str) -> None:
    assert cleaned("mlflow sent a token", uri) == "mlflow sent a token"


@pytest.mark.usefixtures("nothing_sent")
def test_credentials_that_mlflow_found_in_a_file_are_masked() -> None:
    remember_credentials("anna", "from-a-file", "a-token")
    assert cleaned("anna sent from-a-file and a-token") == "anna sent *** and ***"


@pytest.mark.usefixtures("nothing_sent")
def test_a_header_set_by_a_plugin_is_masked() -> None:
    remember_headers({"X-Team-Key": "key-of-ships", "User-Agent": "mlflow-python-client/3"})
    assert cleaned("mlflow-python-client/3 sent key-of-ships") == "mlflow-python-client/3 sent ***"


@pytest.mark.usefixtures("nothing_sent")
def test_basic_authentication_is_masked_encoded_and_decoded() -> None:
    sent = base64.b64encode(b"anna:from-a-plugin").decode()
    remember_headers({"Authorization": f"Basic {sent}"})
    assert cleaned(f"malformed <{sent}>, from-a-plugin") == "malformed <***>, ***"


@pytest.mark.usefixtures("nothing_sent")
def test_remembered_tokens_are_bounded() -> None:
    for number in range(1000):
        remember_headers({"Authorization": f"Bearer token-{number}"})
    assert len(secrets._sent) < 100
    assert cleaned("it was token-999") == "it was ***"


@pytest.mark.parametrize(
    "text",
    [
        "This program sent basic authentication (MLFLOW_TRACKING_USERNAME).",
        "This program sent a bearer token (MLFLOW_TRACKING_TOKEN).",
        "HTTP 401: password authentication failed",
        "HTTP 403: token expired",
    ],
)
def test_words_about_credentials_are_not_masked(text: str) -> None:
    assert cleaned(text) == text
