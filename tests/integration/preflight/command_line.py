"""Runs commands like a shell, and inspects what they left on a server."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import forks

# Not from conftest.py: tests of other floors have modules of that name too.
QUIET = {"GIT_PYTHON_REFRESH": "quiet"}
_API = "/api/2.0/mlflow/"
_LONGEST_SECONDS = 240  # importing MLflow takes 1 s, and on a busy machine a hundred times that


def environ_with(**changes: str) -> dict[str, str]:
    """Returns the environment of a command."""
    return {**os.environ, **QUIET, "PYTHONIOENCODING": "utf-8", **changes}


def arguments_of(*arguments: str) -> list[str]:
    """Returns what follows ``python`` on the command line of a command."""
    return ["-m", "mlflow_sysmetrics.cli", *arguments]


def command(
    *arguments: str, status: int = 0, own_interpreter: bool = False, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command and expects its exit status; ``own_interpreter`` is for what a first import prints."""
    run = forks.run_interpreter if own_interpreter else forks.run
    done = run(
        arguments_of(*arguments),
        env=environ_with(**environ),
        encoding="utf-8",
        timeout=_LONGEST_SECONDS,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def document(*arguments: str, status: int = 0, **environ: str) -> Any:
    """Returns the JSON document that a command prints."""
    return json.loads(command(*arguments, "--json", status=status, own_interpreter=False, **environ).stdout)


def call(url: str, method: str, endpoint: str, body: dict[str, Any]) -> Any:
    """Returns the response of a server's tracking API."""
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request(method, f"{_API}{endpoint}", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())


def remains(url: str) -> tuple[list[str], list[str]]:
    """Returns what checks have not deleted: names of experiments, and ids of runs in any experiment."""
    every = call(url, "POST", "experiments/search", {"max_results": 1000, "view_type": "ALL"})["experiments"]
    names = [one["name"] for one in every if one["lifecycle_stage"] == "active"]
    asked = {
        "experiment_ids": [one["experiment_id"] for one in every],
        "filter": "tags.`sysmetrics.check` LIKE '%'",
    }
    runs = call(url, "POST", "runs/search", asked).get("runs", [])
    return [name for name in names if "check" in name], [run["info"]["run_id"] for run in runs]
