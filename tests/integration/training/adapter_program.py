"""Programs of several trainings with a framework: importing one takes seconds, so they share an interpreter."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import forks
import pytest
from programs import PATIENT, PREAMBLE, QUIET, Store

# The start of every program: `told` collects, by the name of a training, what the tests check.
_TELLING = """
import json, signal
told = {}
def tell(name, run_id=None, **more):
    told[name] = {"run_id": run_id, **more}
    print("told", json.dumps(told), flush=True)
@contextlib.contextmanager
def raised(name):
    try:
        yield
    except BaseException as error:
        tell(name, raised=f"{type(error).__name__}: {error}")
    else:
        tell(name, raised=None)
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # interrupted at once
"""


@dataclass(frozen=True)
class Trained:
    """The results of a program of several trainings."""

    store: Store
    told: dict[str, dict[str, Any]]
    returncode: int
    stderr: str

    def status(self, name: str) -> str:
        """Returns the status of the run of a training."""
        return str(self.store.client.get_run(self.told[name]["run_id"]).info.status)

    def metrics(self, name: str) -> dict[str, float]:
        """Returns the last values of a training."""
        return dict(self.store.client.get_run(self.told[name]["run_id"]).data.metrics)

    def ours(self, name: str) -> set[str]:
        """Returns the keys of a training that the recorder has written."""
        return {key for key in self.metrics(name) if key.startswith(("train/", "epoch/", "final/"))}

    def series(self, name: str, key: str) -> list[tuple[int, float]]:
        """Returns steps and values of a series."""
        history = self.store.client.get_metric_history(self.told[name]["run_id"], key)
        return sorted((point.step, point.value) for point in history)

    def steps(self, name: str, key: str) -> list[int]:
        """Returns the steps of a series, one per point."""
        return [step for step, _ in self.series(name, key)]


def run_program(
    name: str, code: str, places: pytest.TempPathFactory, empty_database: Path, **environ: str
) -> Trained:
    """Runs a program of several trainings, which may end in a crash; once for all test workers."""
    base = places.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = shared / f"program-{name}"
    with filelock.FileLock(f"{directory}.lock"):
        if not directory.exists():
            directory.mkdir()
            done = _run(code, directory, empty_database, environ)
            (directory / "done.json").write_text(json.dumps(done))
    stdout, stderr, returncode = json.loads((directory / "done.json").read_text())
    told = [line for line in stdout.splitlines() if line.startswith("told ")]
    assert told, stderr
    return Trained(_store(directory), json.loads(told[-1].removeprefix("told ")), returncode, stderr)


def _run(code: str, directory: Path, empty_database: Path, environ: dict[str, str]) -> tuple[str, str, int]:
    shutil.copy(empty_database, directory / "runs.db")
    path = directory / "program.py"
    path.write_text(PREAMBLE + _TELLING + textwrap.dedent(code))
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CUDA_"))}
    places = {"MLFLOW_TRACKING_URI": _store(directory).uri, "XDG_STATE_HOME": str(directory / "state")}
    done = forks.run(
        [path], env={**known, **QUIET, **PATIENT, **places, **environ}, cwd=directory, timeout=300
    )
    return done.stdout, done.stderr, done.returncode


def _store(directory: Path) -> Store:
    return Store(f"sqlite:///{directory / 'runs.db'}")
