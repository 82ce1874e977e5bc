"""The auth plugin: the audience of a token, and how a token gets onto a request."""

from __future__ import annotations

import base64
import json

import pytest
import requests

from mlflow_sysmetrics.mlflow_api.google_id_token import (
    GoogleIdTokenAuth,
    GoogleIdTokenAuthProvider,
    IdTokens,
    origin,
)


def token_for(audience: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 9e9, "aud": audience}).encode()).decode().rstrip("=")
    return f"header.{claims}.signature"


def audience_of(request: requests.PreparedRequest) -> str:
    scheme, _, token = request.headers["Authorization"].partition(" ")
    assert scheme == "Bearer"
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["aud"])


def prepared(url: str, **headers: str) -> requests.PreparedRequest:
    auth = GoogleIdTokenAuth(IdTokens(token_for))
    return requests.Request("GET", url, headers=headers, auth=auth).prepare()


def test_a_token_is_for_the_server_that_the_request_goes_to() -> None:
    request = prepared("https://mlflow-abc.a.run.app/api/2.0/mlflow/runs/get?run_id=1")
    assert audience_of(request) == "https://mlflow-abc.a.run.app"


def test_a_token_is_for_the_configured_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUDIENCE", " 123.apps.googleusercontent.com ")
    assert audience_of(prepared("https://mlflow.example/health")) == "123.apps.googleusercontent.com"


def test_an_empty_audience_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUDIENCE", "")
    assert audience_of(prepared("https://mlflow.example/health")) == "https://mlflow.example"


def test_the_token_takes_the_place_of_other_credentials() -> None:
    assert audience_of(prepared("https://mlflow.example/", Authorization="Basic YTpi"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://mlflow.example/prefix/api?x=1#y", "https://mlflow.example"),
        ("https://MLflow.Example:443/", "https://mlflow.example"),
        ("http://mlflow.example:80/", "http://mlflow.example"),
        ("https://mlflow.example:8443/", "https://mlflow.example:8443"),
        ("https://anna:hunter2@mlflow.example/", "https://mlflow.example"),
        ("http://[::1]:5000/health", "http://[::1]:5000"),
    ],
)
def test_the_origin_is_scheme_and_host_and_an_unusual_port(url: str, expected: str) -> None:
    assert origin(url) == expected


def test_the_provider_is_selected_by_its_name() -> None:
    provider = GoogleIdTokenAuthProvider()
    assert provider.get_name() == "google-id-token"
    assert isinstance(provider.get_auth(), requests.auth.AuthBase)
