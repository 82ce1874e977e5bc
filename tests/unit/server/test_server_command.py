"""The command line and environment of a tracking server, from what it is to be."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.server.config import BasicAuth, ServerConfig, environment_of_server, server_command

STORE = "postgresql+psycopg2://anna:s3cr3t@db/runs"


def config(**changes: Any) -> ServerConfig:
    return ServerConfig(**{"backend_store_uri": STORE, "artifacts_destination": "/artifacts", **changes})


def test_options_are_those_that_every_mlflow_has() -> None:
    assert server_command(config(host="0.0.0.0", port=5001, workers=2)).argv == (
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "0.0.0.0", "--port", "5001", "--workers", "2"),
        *("--artifacts-destination", "/artifacts"),
    )


def test_no_password_is_on_the_command_line_or_in_a_representation() -> None:
    auth = BasicAuth(config_path="/auth.ini", secret_key="k3y-of-forms")
    of = config(basic_auth=auth)
    command = server_command(of)
    assert command.environ["MLFLOW_BACKEND_STORE_URI"] == STORE
    assert command.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] == "k3y-of-forms"
    for text in (" ".join(command.argv), repr(of)):
        assert "s3cr3t" not in text
        assert "k3y" not in text


def test_jobs_are_off() -> None:
    assert server_command(config()).environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_allowed_hosts_are_said_with_their_ports_and_their_pages() -> None:
    environ = server_command(config(allowed_hosts=("mlflow", "m.example.org:443"))).environ
    assert environ["MLFLOW_SERVER_ALLOWED_HOSTS"] == "mlflow,mlflow:*,m.example.org:443"
    assert "https://m.example.org:443" in environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


def test_any_host_does_not_mean_pages_of_any_site() -> None:
    assert server_command(config(allowed_hosts=("*",))).environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == ""


def test_without_allowed_hosts_mlflow_chooses() -> None:
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in server_command(config()).environ


def test_what_a_program_says_of_its_own_logging_does_not_reach_the_server() -> None:
    of_caller = {
        "PATH": "/bin",
        "AWS_PROFILE": "mine",
        "MLFLOW_S3_ENDPOINT_URL": "http://objects",
        "MLFLOW_TRACKING_URI": "http://elsewhere",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "elsewhere",
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///elsewhere.db",
        "UVICORN_RELOAD": "true",
        "GUNICORN_CMD_ARGS": "--reload",
        "PYTEST_CURRENT_TEST": "this one",
    }
    environ = environment_of_server(server_command(config()), of_caller)
    assert set(of_caller) & set(environ) == {"PATH", "AWS_PROFILE", "MLFLOW_S3_ENDPOINT_URL"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port": 0}, "port is 0; it must be a whole number from 1 to 65535"),
        ({"port": 70_000}, "port is 70000"),
        ({"port": True}, "port is True"),
        ({"workers": 0}, "workers is 0; it must be a whole number from 1"),
        ({"workers": "2"}, "workers is '2'"),
        ({"host": ""}, "host is ''"),
        ({"host": "::1"}, "host is '::1'; it must be a name or an IPv4 address"),
        ({"host": "--dev"}, "host is '--dev'"),
        ({"allowed_hosts": ("a,b",)}, "allowed_hosts has 'a,b'; write host names such as"),
        ({"allowed_hosts": ("http://a",)}, "allowed_hosts has 'http://a'"),
        ({"allowed_hosts": ("",)}, "allowed_hosts has ''"),
    ],
)
def test_what_makes_no_sense_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        config(**changes)
    assert said in str(raised.value)
