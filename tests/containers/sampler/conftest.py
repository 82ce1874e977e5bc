"""An empty tracking store, and containers with a program that the sampler watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_host import Docker
from sampled_containers import PATIENCE_SECONDS, Start, in_environment

_EMPTY = "import mlflow; mlflow.MlflowClient().search_experiments()"


@pytest.fixture(scope="session")
def empty_store(docker: Docker, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store that the MLflow of the image has made."""
    directory = tmp_path_factory.mktemp("empty")
    directory.chmod(0o777)
    mount = f"{directory}:/store"
    command = ("run", "--rm", "--label", docker.label, "--volume", mount, *in_environment(), image)
    docker(*command, "python", "-c", _EMPTY, timeout=PATIENCE_SECONDS)
    return directory / "mlflow.db"


@pytest.fixture
def start(docker: Docker, image: str, empty_store: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a container with a program that the sampler watches; see `Start.__call__`."""
    starter = Start(docker, image, empty_store, tmp_path)
    try:
        yield starter
    finally:
        starter.close()
