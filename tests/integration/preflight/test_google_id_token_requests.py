"""MLflow's requests with Google ID tokens, from a metadata server on loopback and from a fake gcloud."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forks
import pytest
from google_servers import MetadataServer, TokenNotingServer, claims_of, id_token, serving
from programs import QUIET, Program

PATIENCE = 240  # importing MLflow takes 2 s on an idle machine, and half a minute on a busy one
SITUATIONS = ["first", "50 minutes later", "58 minutes later", "of a child", "for an audience"]
PROGRAM = """
import os, sys, time
import mlflow
print("loaded by importing MLflow:", any("mlflow_sysmetrics.mlflow_api" in name for name in sys.modules))
client = mlflow.MlflowClient()
client.search_experiments()
from mlflow_sysmetrics.mlflow_api import google_id_token
ahead = 0
google_id_token._id_tokens._clock = lambda: time.time() + ahead
for ahead in (3000, 3500):
    client.search_experiments()
sys.stdout.flush()
child = os.fork()
if not child:
    client.search_experiments()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os.environ["MLFLOW_TRACKING_AUDIENCE"] = "https://other.example"
client.search_experiments()
"""
SEARCH = "mlflow.MlflowClient().search_experiments()\n"

needs_google_auth = pytest.mark.skipif(
    find_spec("google") is None or find_spec("google.auth") is None,
    reason="google-auth is not installed; MLflow 2.8 does not bring it",
)


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    """A metadata server that hands out tokens."""
    server = MetadataServer()
    with serving(server):
        yield server


@pytest.fixture
def tracking() -> Iterator[TokenNotingServer]:
    """A tracking server that records tokens."""
    server = TokenNotingServer()
    with serving(server):
        yield server


def on_google_cloud(address: str, **others: str) -> dict[str, str]:
    """Returns the environment of a machine whose metadata server is at an address, without gcloud."""
    return {
        "MLFLOW_TRACKING_AUTH": "google-id-token",
        "GCE_METADATA_HOST": address,
        "GCE_METADATA_IP": address,
        "GCE_METADATA_DETECT_RETRIES": "1",
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "PATH": "/nowhere",
        **others,
    }


@dataclass(frozen=True)
class Noted:
    """What a program sent to its tracking server, and what it printed."""

    uri: str
    claims: dict[str, dict[str, Any]]
    printed: str


@pytest.fixture(scope="module")
def requests_of_a_program(tmp_path_factory: pytest.TempPathFactory) -> Noted:
    """One program that makes a request in each situation: importing MLflow takes seconds."""
    metadata, tracking = MetadataServer(), TokenNotingServer()
    others = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with serving(metadata), serving(tracking):
        uri = f"http://{tracking.address}"
        done = forks.run_interpreter(
            ["-c", PROGRAM],
            env={**others, **on_google_cloud(metadata.address), **QUIET, "MLFLOW_TRACKING_URI": uri},
            cwd=tmp_path_factory.mktemp("google"),
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    claims = [claims_of(one) for one in tracking.authorizations]
    return Noted(uri, dict(zip(SITUATIONS, claims, strict=True)), done.stdout.strip())


def test_the_plugin_is_installed() -> None:
    (found,) = entry_points(group="mlflow.request_auth_provider", name="google-id-token")
    assert found.load()().get_name() == "google-id-token"


def test_the_plugin_has_the_interface_that_mlflow_expects() -> None:
    from mlflow.tracking.request_auth.abstract_request_auth_provider import (
        RequestAuthProvider,
    )

    from mlflow_sysmetrics.mlflow_api.google_id_token import GoogleIdTokenAuthProvider

    for name in RequestAuthProvider.__abstractmethods__:
        assert callable(getattr(GoogleIdTokenAuthProvider, name))


@needs_google_auth
def test_importing_mlflow_does_not_load_the_plugin(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.printed == "loaded by importing MLflow: False"


@needs_google_auth
def test_a_request_has_a_token_for_the_tracking_server(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.claims["first"]["aud"] == requests_of_a_program.uri


@needs_google_auth
def test_requests_share_a_token(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.claims["50 minutes later"] == requests_of_a_program.claims["first"]


@needs_google_auth
def test_a_token_that_is_about_to_expire_is_replaced(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.claims["58 minutes later"]["number"] == 2


@needs_google_auth
def test_a_forked_child_has_the_token_too(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.claims["of a child"]["number"] == 2


@needs_google_auth
def test_a_request_has_a_token_for_the_audience_that_is_set(requests_of_a_program: Noted) -> None:
    assert requests_of_a_program.claims["for an audience"]["aud"] == "https://other.example"


@needs_google_auth
def test_a_refusal_is_reported_without_the_response_body(
    program: Program, metadata: MetadataServer, tracking: TokenNotingServer
) -> None:
    metadata.refusal = "hunter2"
    environ = on_google_cloud(metadata.address)
    done = program(f"http://{tracking.address}", SEARCH, check=False, timeout=PATIENCE, **environ)
    assert done.returncode == 1
    assert "There is no Google ID token for http://127.0.0.1" in done.stderr
    assert "Status: 403" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert tracking.authorizations == []


@pytest.mark.skipif(os.name != "posix", reason="gcloud is played by a script of a POSIX shell")
def test_on_a_laptop_the_token_comes_from_gcloud(
    program: Program, tracking: TokenNotingServer, tmp_path: Path
) -> None:
    token = id_token("gcloud", 1)
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f"#!/bin/sh\necho {token}\n")
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)
    environ = on_google_cloud("127.0.0.1:9", PATH=str(tmp_path))  # nothing listens on the port of "discard"
    program(f"http://{tracking.address}", SEARCH, timeout=PATIENCE, **environ)
    assert tracking.authorizations == [f"Bearer {token}"]
