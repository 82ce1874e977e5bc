"""Deployments of deploy/ on a real Docker."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from base_images import BUSYBOX, POSTGRES, PYTHON, available
from compose_command import compose_command
from deployments import DEPLOY, Deploy, Deployment
from docker_host import Docker

# What may break a URI, a shell or an .env, and can stand between single quotes there.
PASSWORD = "p@ss:w0rd/of $HOME #1"


@pytest.fixture(scope="module")
def deploy(docker: Docker, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """Makes a deployment that is removed at the end of the module."""
    made: list[Deployment] = []
    python, postgres = available(docker, PYTHON, cache), available(docker, POSTGRES, cache)
    busybox = available(docker, BUSYBOX, cache)
    if busybox != BUSYBOX.official:
        docker("tag", busybox, BUSYBOX.official)

    def make(**variables: str | int) -> Deployment:
        directory = tmp_path_factory.mktemp("deploy") / "mlflow"
        shutil.copytree(DEPLOY, directory)
        project = f"{docker.prefix}-{len(made)}"
        pulls = python == PYTHON.official
        one = Deployment(docker, compose_command(cache), directory, project, _free_port(), pulls)
        made.append(one)
        one.configure(
            COMPOSE_PROJECT_NAME=project,
            PUBLISH_PORT=one.port,
            MODEL_PORT=_free_port(),
            POSTGRES_PASSWORD=PASSWORD,
            POSTGRES_IMAGE=postgres,
            PYTHON_VERSION=python.removeprefix("python:").removesuffix("-slim"),
            **variables,
        )
        return one

    try:
        yield make
    finally:
        for one in made:
            one.remove()


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening


def _free_port() -> int:
    with _listening() as found:
        port: int = found.getsockname()[1]
        return port
