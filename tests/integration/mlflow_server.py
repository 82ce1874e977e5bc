"""`mlflow server` in one process: what it would start, uvicorn, runs in the process of the command.

Run by `forks`, which has imported what the server imports: it answers within a second instead of five.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow.server
from mlflow.cli import cli

_start = mlflow.server._exec_cmd


def _run_here(command: Sequence[str], *, extra_env: Mapping[str, str] | None = None, **more: Any) -> Any:
    """Runs ``python -m uvicorn`` here; MLflow before 3 starts gunicorn, which is a process of its own."""
    if "-m" not in command:
        return _start(command, extra_env=extra_env, **more)
    os.environ.update(extra_env or {})
    # These read the environment when they are imported.
    importlib.reload(mlflow.server)
    sys.modules.pop("mlflow.server.fastapi_app", None)
    sys.argv = [*command[command.index("-m") + 1 :]]
    return runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


mlflow.server._exec_cmd = _run_here
cli()
