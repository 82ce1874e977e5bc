"""A docker daemon for `nox -s containers` and `nox -s docker`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_images import PYTHON, available
from docker_host import Docker, docker_here

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_BUILD_SECONDS = 900


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A daemon; see `docker_host`."""
    with docker_here() as found:
        yield found


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest) -> Path:
    """A directory that is kept from one session to the next."""
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("containers"))


@pytest.fixture(scope="session")
def image(docker: Docker, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with this checkout's wheel."""
    context = tmp_path_factory.mktemp("image")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(context),
        str(ROOT),
    ]
    subprocess.run(pip, check=True, timeout=_BUILD_SECONDS, cwd=context)
    shutil.copy(HERE / "Dockerfile", context)
    version = available(docker, PYTHON, cache).removeprefix("python:").removesuffix("-slim")
    name = f"{docker.prefix}-sampler"
    docker(
        *(
            "build",
            "--force-rm",
            "--quiet",
            "--tag",
            name,
            "--label",
            docker.label,
            "--build-arg",
            f"PYTHON_VERSION={version}",
        ),
        str(context),
        timeout=_BUILD_SECONDS,
    )
    return name
