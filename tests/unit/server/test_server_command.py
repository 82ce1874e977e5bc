"""The command line and environment of a tracking server follow from its configuration."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mlflow_sysmetrics.errors import SettingsError
from mlflow_sysmetrics.server.config import BasicAuth, ServerConfig, environment_of_server, server_command

STORE = "postgresql+psycopg2://anna:s3cr3t@db/runs"


def config(**changes: Any) -> ServerConfig:
    return ServerConfig(**{"backend_store_uri": STORE, "artifacts_destination": "/artifacts", **changes})


def test_options_are_those_of_every_mlflow() -> None:
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


def test_allowed_hosts_include_their_ports_and_origins() -> None:
    environ = server_command(config(allowed_hosts=("mlflow", "m.example.org:443"))).environ
    assert environ["MLFLOW_SERVER_ALLOWED_HOSTS"] == "mlflow,mlflow:*,m.example.org:443"
    assert "https://m.example.org:443" in environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


def test_any_host_does_not_allow_any_origin() -> None:
    assert server_command(config(allowed_hosts=("*",))).environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == ""


def test_without_allowed_hosts_mlflow_uses_its_default() -> None:
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in server_command(config()).environ


def test_settings_of_the_program_do_not_reach_the_server() -> None:
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
        ({"port": 0}, "port must be an integer from 1 to 65535, got 0"),
        ({"port": 70_000}, "port must be an integer from 1 to 65535, got 70000"),
        ({"port": True}, "port must be an integer from 1 to 65535, got True"),
        ({"workers": 0}, "workers must be an integer >= 1, got 0"),
        ({"workers": "2"}, "workers must be an integer >= 1, got '2'"),
        ({"host": ""}, "host must be a name or an IPv4 address to listen on, got ''"),
        ({"host": "::1"}, "host must be a name or an IPv4 address to listen on, got '::1'"),
        ({"host": "--dev"}, "host must be a name or an IPv4 address to listen on, got '--dev'"),
        (
            {"allowed_hosts": ("a,b",)},
            "allowed_hosts must contain host names such as 'mlflow' or '*.example.org:443', got 'a,b'",
        ),
        (
            {"allowed_hosts": ("http://a",)},
            "allowed_hosts must contain host names such as 'mlflow' or '*.example.org:443', got 'http://a'",
        ),
        (
            {"allowed_hosts": ("",)},
            "allowed_hosts must contain host names such as 'mlflow' or '*.example.org:443', got ''",
        ),
    ],
)
def test_an_invalid_configuration_is_reported(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        config(**changes)
    assert said in str(raised.value)
