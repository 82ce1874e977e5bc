"""Programs by the dozen: real processes, forked from one that has imported MLflow already.

Importing MLflow takes seconds of CPU time, a fork a few milliseconds. A forked program begins without threads
and without a daemon, runs its code as ``__main__``, and leaves through the interpreter's ordinary end.
As a program this file is the process that forks; `Nursery` speaks to it over a pipe, one line of JSON each way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_TESTS = _HERE.parents[1]
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
        pid: its process.
        here: its directory, where words are left and its output lies.
        nursery: where it was started.
        ended: whether its end has been waited for.
    """

    pid: int
    here: Path
    nursery: Nursery = field(repr=False)
    ended: bool = False

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
        status = self.nursery.ask({"wait": self.pid, "seconds": seconds})
        assert status is not None, f"still running after {seconds:g} s: {self.stderr}"
        self.ended = True
        return int(status)


class Nursery:
    """Starts programs.

    Args:
        directory: where each program gets a directory of its own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started = 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "GIT_PYTHON_REFRESH": "quiet",
                "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            },
        )

    def start(self, code: str, **environ: str) -> Program:
        """Starts a program; the environment is this nursery's and what is given.

        Args:
            code: its text, after `PREAMBLE`.
            environ: variables of its own.
        """
        here = self._directory / f"program-{self._started}"
        here.mkdir()
        self._started += 1
        program = PREAMBLE + textwrap.dedent(code)
        environ |= {"CHAOS_HERE": str(here), "CHAOS_SIDE": str(here / "sampled.jsonl")}
        pid = self.ask({"code": program, "here": str(here), "environ": environ})
        return Program(pid, here, self)

    def ask(self, question: dict[str, Any]) -> Any:
        """Puts a question to the process that forks and returns its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process that forks; its programs are expected to have ended."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def nursery(directory: Path) -> Iterator[Nursery]:
    """Runs a nursery for the time of a ``with`` block."""
    running = Nursery(directory)
    try:
        yield running
    finally:
        running.close()


def _await_end(pid: int, seconds: float) -> int | None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _become(question: dict[str, Any]) -> str:
    """Turns a forked child into a program: its own directory, output and variables; returns its text."""
    # Where the tests run in the background of a shell, SIGINT is ignored, and a program would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(question["environ"])
    os.chdir(question["here"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    return str(question["code"])


def _serve() -> str:
    """Answers questions; returns only in a child, with the text of its program."""
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = _await_end(question["wait"], question["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                return _become(question)
        print(json.dumps(answer), flush=True)  # noqa: T201 - this is its voice
    os._exit(0)


if __name__ == "__main__":
    sys.path[:0] = [str(_HERE), str(_TESTS)]
    import requests  # noqa: F401
    from mlflow import MlflowClient  # noqa: F401
    from mlflow.store.tracking.rest_store import RestStore  # noqa: F401

    exec(compile(_serve(), "program.py", "exec"), {"__name__": "__main__"})
