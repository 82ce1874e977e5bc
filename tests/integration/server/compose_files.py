"""Reads the compose file and the Dockerfile in deploy/ like Docker, but without it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
# What Compose's manual calls interpolation, as far as our file uses it: $$, ${A}, ${A:-b}, ${A:?said}.
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<rest>[^}]*))?\})")
FILLED_IN = {
    "COMPOSE_PROFILES": "auth,s3",
    "POSTGRES_PASSWORD": "p@ss:w0rd/of the database",
    "PUBLIC_HOST": "ml.example.org",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "p4ssword of the admin",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "0123456789abcdef0123456789abcdef",
}


class Refused(Exception):
    """Compose does not start because a variable is missing; the text is its message."""


class Variable(NamedTuple):
    """One use of a variable."""

    name: str
    how: str | None
    rest: str | None


def variables() -> list[Variable]:
    """Returns the variables that the compose file takes from .env, outside its comments."""
    text = "\n".join(line for line in _compose().splitlines() if not line.lstrip().startswith("#"))
    found = [match for match in _VARIABLE.finditer(text) if not match["dollar"]]
    return [Variable(match["name"], match["how"], match["rest"]) for match in found]


def compose(environ: Mapping[str, str]) -> Any:
    """Returns the compose file as Compose reads it with this .env.

    Raises:
        Refused: a variable is missing that must be set.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = environ.get(match["name"], "")
        if match["how"] == ":?" and not found:
            raise Refused(match["rest"])
        return found or (match["rest"] if match["how"] == ":-" else "") or ""

    def interpolated(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: interpolated(one) for key, one in node.items()}
        if isinstance(node, list):
            return [interpolated(one) for one in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    return interpolated(yaml.safe_load(_compose()))


def environment_of(service: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a container: of the image, of the service, and passed through."""
    found = dict(image_environment())
    for name, value in service.get("environment", {}).items():
        if value is not None:
            found[name] = str(value)
        elif name in environ:
            found[name] = environ[name]
    return found


class Instruction(NamedTuple):
    """One line of a Dockerfile, its continuations joined."""

    name: str
    text: str


def dockerfile() -> list[list[Instruction]]:
    """Returns the stages of the Dockerfile, each beginning with its FROM, without the lines before the first."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stages: list[list[Instruction]] = []
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(Instruction(name, " ".join(rest.split())))
    return stages


def last(name: str) -> str:
    """Returns the last instruction of a name in the stage that becomes the image."""
    return [one.text for one in dockerfile()[-1] if one.name == name][-1]


def image_environment() -> dict[str, str]:
    """Returns the variables that the image sets."""
    return dict(pair.split("=", 1) for pair in last("ENV").split())  # type: ignore[misc]


def health_check_of_image() -> tuple[dict[str, str], list[str]]:
    """Returns options and command of the image's health check."""
    options, _, command = last("HEALTHCHECK").partition(" CMD ")
    return dict(re.findall(r"--([\w-]+)=(\S+)", options)), json.loads(command)


def runnable(argv: list[str]) -> list[str]:
    """Returns a command of the image in a form that runs here: its programs are modules of this Python."""
    programs = {"mlflow": [sys.executable, "-m", "mlflow"], "python": [sys.executable]}
    return [*programs[argv[0]], *argv[1:]]


def _compose() -> str:
    return (DEPLOY / "compose.yaml").read_text()
