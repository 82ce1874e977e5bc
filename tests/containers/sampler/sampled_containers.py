"""Containers in which the sampler of this checkout watches a program, beside the kernel's accounting of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker_host import Docker
from kernel_accounting import Group, Witness

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
_BUILD_SECONDS = 900
# The import of MLflow alone takes ten seconds of a core, and a container may have a quarter of one.
PATIENCE_SECONDS = 180
_EMPTY = "import mlflow; mlflow.MlflowClient().search_experiments()"

Points = list[tuple[float, float]]  # seconds since 1970, value


@dataclass(frozen=True)
class Sampled:
    """A container with a program that the sampler watches.

    Attributes:
        docker: its daemon.
        name: its name.
        store: directory of its tracking store, on the host.
        witness: the kernel's accounting of it.
    """

    docker: Docker
    name: str
    store: Path
    witness: Witness

    @property
    def pid(self) -> int:
        """Its first process, as the host sees it."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", self.name))

    def points(self, key: str, *, after: float = 0) -> Points:
        """Returns the points of a series since a moment."""
        query = "SELECT timestamp, value FROM metrics WHERE key = ? AND timestamp > ? ORDER BY timestamp"
        rows = self._ask(query, f"system/{key}", round(after * 1000))
        return [(timestamp / 1000, value) for timestamp, value in rows]

    def series(self, *, after: float = 0) -> set[str]:
        """Returns the names of the series with a point since a moment."""
        rows = self._ask("SELECT DISTINCT key FROM metrics WHERE timestamp > ?", round(after * 1000))
        return {key.removeprefix("system/") for (key,) in rows}

    def tags(self) -> dict[str, str]:
        """Returns the tags of the run."""
        return dict(self._ask("SELECT key, value FROM tags"))

    def statuses(self) -> list[object]:
        """Returns the statuses of the runs."""
        return [status for (status,) in self._ask("SELECT status FROM runs")]

    def wait_for(self, number: int, key: str, *, after: float = 0) -> Points:
        """Returns the points of a series since a moment as soon as there are so many."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.points(key, after=after)) < number:
            if time.monotonic() > ends:
                shown = self.docker.run("logs", "--tail", "30", self.name)
                pytest.fail(f"{len(found)} points of {key}\n{shown.stdout}{shown.stderr}")
            time.sleep(0.2)
        return found

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container."""
        return self.docker.run("exec", self.name, *command)

    def end(self) -> dict[str, object]:
        """Ends the program and returns what the sampler has said of itself."""
        self.docker("kill", "--signal", "TERM", self.name)
        code = self.docker("wait", self.name, timeout=PATIENCE_SECONDS)
        shown = self.docker.run("logs", self.name)
        assert code == "0", shown.stdout + shown.stderr
        said: dict[str, object] = json.loads(shown.stdout.splitlines()[-1])
        return said

    def _ask(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.store}/mlflow.db?mode=ro", uri=True)
        ) as database:
            database.execute("PRAGMA busy_timeout = 30000")
            return database.execute(query, values).fetchall()


class Start:
    """Starts containers; see the fixture `start`."""

    def __init__(self, docker: Docker, image: str, empty: Path, directory: Path) -> None:
        self._docker = docker
        self._image = image
        self._empty = empty
        self._directory = directory
        self._numbers = itertools.count(1)
        self._started: list[Sampled] = []

    def __call__(self, *children: str, options: Sequence[str] = (), entry: Sequence[str] = ()) -> Sampled:
        """Starts a container and waits until its run has begun.

        Args:
            *children: programs that run beside it, in Python.
            options: options of `docker run`.
            entry: command that starts the program, which is given to it.
        """
        name = f"{self._docker.prefix}-{next(self._numbers)}"
        store = self._directory / name
        store.mkdir()
        shutil.copy(self._empty, store / "mlflow.db")
        for path in (store, store / "mlflow.db"):
            path.chmod(0o777)  # for a container whose user is somebody else
        self._docker(
            *("run", "--detach", "--name", name, "--label", self._docker.label),
            *("--volume", f"{store}:/store", "--volume", f"{HERE}:/test:ro", *in_environment()),
            *options,
            *(self._image, *entry, "python", "/test/sampled_program.py", *children),
        )
        container = Sampled(self._docker, name, store, None)  # type: ignore[arg-type]
        ends = time.monotonic() + PATIENCE_SECONDS
        while "started" not in (shown := self._docker.run("logs", name)).stdout.splitlines():
            running = self._docker("inspect", "--format", "{{.State.Running}}", name)
            if running == "false" or time.monotonic() > ends:
                pytest.fail(f"the program has not started\n{shown.stdout}{shown.stderr}")
            time.sleep(0.2)
        started = Sampled(self._docker, name, store, Witness(Group(container.pid)))
        self._started.append(started)
        return started

    def close(self) -> None:
        """Removes all of them."""
        for one in self._started:
            one.witness.close()
        for number in range(1, next(self._numbers)):
            name = f"{self._docker.prefix}-{number}"
            # Files of a container's root cannot be removed by an ordinary user.
            self._docker.run("rm", "--force", "--volumes", name)
            if (self._directory / name).exists():
                owner = f"{os.getuid()}:{os.getgid()}"
                mount = f"{self._directory / name}:/store"
                self._docker.run(
                    *("run", "--rm", "--label", self._docker.label, "--volume", mount, self._image),
                    *("chown", "--recursive", owner, "/store"),
                )


def in_environment(**further: str) -> list[str]:
    """Returns options that set the environment of a container: a point every second, sent every second."""
    variables = {
        "MLFLOW_TRACKING_URI": "sqlite:////store/mlflow.db",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
        "MLFLOW_SYSMETRICS_SEND_INTERVAL": "1",
        **further,
    }
    return [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
