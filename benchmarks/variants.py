"""The two sides of the comparison, and a fresh interpreter for one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_HERE = Path(__file__).parent
_LONGEST_ANSWER_SECONDS = 300.0  # in addition to the time that a command is meant to take
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Variant:
    """One side.

    Attributes:
        name: heading of its column.
        environ: the variables that select it; all other MLflow variables are removed.
    """

    name: str
    environ: Mapping[str, str]

    def with_environ(self, **environ: str) -> Variant:
        """Returns this side with more variables."""
        return Variant(self.name, {**self.environ, **environ})


BUILT_IN = Variant(
    "built-in", {"MLFLOW_RUN_CONTEXT_PROVIDER": "none", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}
)
OURS = Variant("ours", {})  # enabled by being installed


class Worker:
    """A fresh interpreter that runs commands, see `worker.py`."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def ask(self, do: str, takes: float = 0.0, **arguments: object) -> Any:
        """Runs a command and returns its result.

        Args:
            do: name of the command.
            takes: seconds the command is meant to take.
            arguments: arguments of the command.

        Raises:
            RuntimeError: the interpreter failed, or took far too long.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        watchdog = threading.Timer(takes + _LONGEST_ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not answer:
            self._errors.seek(0)
            raise RuntimeError("".join(["the worker failed:\n", *self._errors.readlines()[-_LAST_LINES:]]))
        return json.loads(answer)


@contextmanager
def fresh_worker(variant: Variant, tracking_uri: str) -> Iterator[Worker]:
    """Starts an interpreter of one side, with `mlflow` imported, for the duration of a ``with`` block."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile("w+") as errors:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environ |= {
            "PYTHONPATH": str(_HERE),
            "MLFLOW_TRACKING_URI": tracking_uri,
            **variant.environ,
        }
        # No script and no repository around the working directory, in which MLflow would run git.
        command = [sys.executable, "-c", "import worker; worker.main()"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environ, cwd=directory, stdin=pipe, stdout=pipe, stderr=errors, text=True
        ) as process:
            try:
                yield Worker(process, errors)
            finally:
                process.kill()
