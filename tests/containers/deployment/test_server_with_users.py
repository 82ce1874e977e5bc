"""The profile with users and passwords, on a real Docker."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request

import pytest
from deployments import README, Deploy, Deployment

ADMIN = "a-long-password of the admin"
CREATE = """
import mlflow
mlflow.set_experiment("ships")
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("1 2 3", "weights.txt")
print("logged")
"""


@pytest.fixture(scope="module")
def server(deploy: Deploy) -> Deployment:
    """An installation with users, whose secrets are missing at first."""
    return deploy(COMPOSE_PROFILES="auth", MLFLOW_AUTH_ADMIN_PASSWORD="short")


def status(server: Deployment, path: str, user: str = "", password: str = "") -> int:
    """Returns the status of an answer."""
    request = urllib.request.Request(f"{server.url}{path}")
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_does_not_start_without_its_secrets(server: Deployment) -> None:
    done = server.compose("up", "--detach", "--build", check=False)
    assert done.returncode != 0
    assert "set in .env: MLFLOW_AUTH_ADMIN_PASSWORD" in server.follow("docker compose logs secrets")


def test_only_users_may_log(server: Deployment, image: str) -> None:
    server.configure(MLFLOW_AUTH_ADMIN_PASSWORD=ADMIN, MLFLOW_FLASK_SERVER_SECRET_KEY="0123456789abcdef" * 2)
    server.start()
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(server, "/health") == 200
    assert status(server, search) == 401
    assert status(server, search, "admin", ADMIN) == 200
    [create] = re.findall(r"```python\n(from mlflow\.server .*?)```", README, re.DOTALL)
    admin = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN}
    server.program(_image(server), create.replace("http://localhost:5001", "http://mlflow:5000"), **admin)
    user = {"MLFLOW_TRACKING_USERNAME": "trainer", "MLFLOW_TRACKING_PASSWORD": "a-long-password"}
    assert "logged" in server.program(image, CREATE, **user)
    assert "Uvicorn running" in server.follow("docker logs mlflow")


def _image(server: Deployment) -> str:
    return server.docker("inspect", "--format", "{{.Config.Image}}", server.project)


def test_users_survive_a_new_container(server: Deployment) -> None:
    server.compose("down")
    server.start()
    assert (
        status(server, "/api/2.0/mlflow/experiments/search?max_results=1", "trainer", "a-long-password")
        == 200
    )
