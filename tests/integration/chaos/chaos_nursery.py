"""Programs by the dozen: real processes, forked from one that has imported MLflow already (see `forks`)."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forks

QUIET = {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}

_HERE = Path(__file__).parent
_TESTS = _HERE.parents[1]
_PATH = f"import sys\nsys.path[:0] = [{str(_HERE)!r}, {str(_TESTS)!r}]\n"
_LONG_SECONDS = 180  # what takes so long never ends, however busy the machine is

# Every program begins with this: its testimony, and a word with the test, by files that nobody has to listen to.
PREAMBLE = '''
import atexit, os, signal, sys, threading, time
from pathlib import Path
import mlflow
import mlflow_sysmetrics
import chaos_sampled
from mlflow_sysmetrics.collectors import watched_paths
from mlflow_sysmetrics.daemon import daemon
from stalls import Stalls
from watching import eventually, lasting_threads, ticked
HERE, URL = Path(os.environ["CHAOS_HERE"]), os.environ.get("CHAOS_URL", "")
# An exit waits a quarter of a second for the last sample and for the end of the journal, and a tick as long
# for a disk: enough for what happens at once, but not on a machine that is busy with other things.
watched_paths._FIRST_ANSWER_SECONDS = 60.0
daemon._LAST_SAMPLE_SECONDS = float(os.environ.get("CHAOS_LAST_SAMPLE_SECONDS", "60"))
chaos_sampled.record(os.environ["CHAOS_SIDE"])
def tell(word):
    (HERE / word).touch()
def await_word(word):
    eventually((HERE / word).exists, 120)
def await_sample():
    """Returns once something has been sampled, and journalled."""
    eventually(lambda: b"taken" in Path(os.environ["CHAOS_SIDE"]).read_bytes(), 120)
'''


@dataclass
class Program:
    """One program of a nursery.

    Attributes:
        process: its process.
        here: its directory, where words are left and its output lies.
        ended: whether its end has been waited for.
    """

    process: subprocess.Popen[Any] = field(repr=False)
    here: Path
    ended: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def side(self) -> Path:
        """What it sampled, by its own testimony."""
        return self.here / "sampled.jsonl"

    @property
    def stdout(self) -> str:
        """What it has printed, without the links that MLflow prints."""
        lines = (self.here / "stdout").read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith(("🏃", "🧪")))

    @property
    def stderr(self) -> str:
        """What it has complained of."""
        return (self.here / "stderr").read_text()

    def tell(self, word: str) -> None:
        """Leaves a word for the program, which waits for it with ``await_word``."""
        (self.here / word).touch()

    def await_word(self, word: str, seconds: float = _LONG_SECONDS) -> None:
        """Waits until the program has said ``tell(word)``."""
        ends = time.monotonic() + seconds
        while not (self.here / word).exists():
            assert time.monotonic() < ends, f"no word {word!r} within {seconds:g} s: {self.stderr}"
            time.sleep(0.005)

    def await_sample(self) -> None:
        """Waits until something has been sampled, and journalled."""
        ends = time.monotonic() + _LONG_SECONDS
        while not self.side.exists() or b"taken" not in self.side.read_bytes():
            assert time.monotonic() < ends, f"nothing was sampled: {self.stderr}"
            time.sleep(0.005)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Sends a signal."""
        os.kill(self.pid, signal_number)

    def wait(self, seconds: float = 2 * _LONG_SECONDS) -> int:
        """Waits for its end and returns its exit status, negative for a signal."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s: {self.stderr}") from None
        self.ended = True
        return status


class Nursery:
    """Starts programs.

    Args:
        directory: where each program gets a directory of its own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started = 0
        self._environ = dict(os.environ)

    def start(self, code: str, **environ: str) -> Program:
        """Starts a program; the environment is this nursery's and what is given.

        Args:
            code: its text, after `PREAMBLE`.
            environ: variables of its own.
        """
        here = self._directory / f"program-{self._started}"
        here.mkdir()
        self._started += 1
        (here / "program.py").write_text(_PATH + PREAMBLE + textwrap.dedent(code))
        environ = {**self._environ, **QUIET, **environ}
        environ |= {"CHAOS_HERE": str(here), "CHAOS_SIDE": str(here / "sampled.jsonl")}
        with (here / "stdout").open("ab") as stdout, (here / "stderr").open("ab") as stderr:
            streams = {"stdout": stdout, "stderr": stderr}
            process = forks.popen([here / "program.py"], forks.MLFLOW, env=environ, cwd=here, **streams)
        return Program(process, here)
