"""The compose file of deploy/ on a real Docker, with names that belong to the tests alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker_host import PROJECT, Docker

DEPLOY = Path(__file__).parents[3] / "deploy"
README = (DEPLOY / "README.md").read_text()
# A version whose tables the current one upgrades.
PREVIOUS = "3.15.2"
PATIENCE_SECONDS = 300
BUILD_SECONDS = 1200


@dataclass(frozen=True)
class Deployment:
    """A copy of deploy/ with an .env, and what Compose makes of it.

    Attributes:
        docker: the daemon.
        command: Compose.
        directory: the copy.
        project: name of the server's container, and what all other names begin with.
        port: where the server is published.
        pulls: False if the images that it is built from are not from a registry.
    """

    docker: Docker
    command: Sequence[str]
    directory: Path
    project: str
    port: int
    pulls: bool

    @property
    def url(self) -> str:
        """Address of the server for this machine."""
        return f"http://localhost:{self.port}"

    def configure(self, **variables: str | int) -> None:
        """Sets variables in .env, as a user does: lines of .env.example are filled in, others added."""
        path = self.directory / ".env"
        lines = path.read_text() if path.exists() else (self.directory / ".env.example").read_text()
        for name, value in variables.items():
            line = f"{name}='{value}'"
            lines, number = re.subn(rf"^#?{name}=.*$", lambda _, line=line: line, lines, flags=re.MULTILINE)
            lines += "" if number else f"{line}\n"
        path.write_text(lines)

    def compose(
        self, *arguments: str, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Runs Compose."""
        return self.shell([*self.command, *arguments], check=check, **options)

    def follow(self, commands: str, *, check: bool = True) -> str:
        """Runs commands of the README and returns what they print.

        Only names differ: of the program Compose where it is not a plugin, and of volumes and containers.
        """
        here = commands.replace("docker compose", " ".join(self.command))
        here = re.sub(r"\bmlflow(_artifacts|-postgres\b)", rf"{self.project}\1", here)
        here = re.sub(r"(docker (?:logs|exec)|Status}}') mlflow\b", rf"\1 {self.project}", here)
        if not self.pulls:
            here = here.replace("build --pull", "build")
        done = self.shell(["bash", "-euo", "pipefail", "-c", here], check=check)
        return done.stdout + done.stderr

    def shell(
        self, command: Sequence[str], *, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the directory."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.docker.environ,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
            **options,  # type: ignore[call-overload]
        )
        shown = f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        sys.stdout.write(f"$ {shown}\n")
        assert not check or done.returncode == 0, shown
        return done

    def start(self, *services: str) -> None:
        """Starts it and waits until what runs is healthy."""
        if self.compose("up", "--detach", "--build", *services, check=False).returncode:
            pytest.fail(self.compose("logs", "--tail", "40").stdout)
        self.wait(self.project)

    def wait(self, container: str) -> None:
        """Waits until a container is healthy."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while (health := self.health(container)) != "healthy":
            if time.monotonic() > ends:
                shown = self.docker.run("logs", "--tail", "40", container)
                pytest.fail(f"{container} is {health}\n{shown.stdout}{shown.stderr}")
            time.sleep(1)

    def health(self, container: str) -> str:
        """Returns the state of a container's health check."""
        return self.docker(
            "inspect", "--format", "{{if .State.Health}}{{.State.Health.Status}}{{end}}", container
        )

    def get(self, path: str, port: int | None = None, body: object = None) -> tuple[int, str]:
        """Returns status and text of an answer."""
        request = urllib.request.Request(
            f"http://localhost:{port or self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def program(self, image: str, code: str, *, name: str = "", **environ: str) -> str:
        """Runs a program in a container on the network and returns what it prints; with a name, in the background."""
        variables = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", **environ}
        given = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
        kept = ("--detach", "--name", name) if name else ("--rm",)
        label = ("--label", self.docker.label)
        network = ("--network", self.project)
        return self.docker(
            "run", *kept, *label, *network, *given, image, "python", "-c", code, timeout=PATIENCE_SECONDS
        )

    def remove(self) -> None:
        """Removes containers, network and volumes, whatever state they are in."""
        self.docker.remove_all(f"{PROJECT}={self.project}")
        shutil.rmtree(self.directory, ignore_errors=True)


Deploy = Callable[..., Deployment]


def blocks(heading: str) -> list[str]:
    """Returns the commands below a heading of the README, one text per block."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
