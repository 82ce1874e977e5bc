"""The example in examples/model_lifecycle: trainer, scheduler and predictor on one server."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import forks
import pytest
from databases import KINDS
from programs import QUIET, Databases, Store

from installed import require
from mlflow_sysmetrics import LocalServer

require("sklearn")

EXAMPLE = Path(__file__).parents[3] / "examples" / "model_lifecycle"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
PATIENCE_SECONDS = 240  # importing MLflow takes half a minute on a busy machine


class Service:
    """A program of the example that runs until it is stopped, and its output."""

    def __init__(self, program: str, uri: str) -> None:
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = forks.popen(
            [str(EXAMPLE / program)],
            env={**os.environ, **QUIET, "MLFLOW_TRACKING_URI": uri},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.strip())

    def next_line(self) -> str:
        """Waits for the next line of output."""
        line = self._lines.get(timeout=PATIENCE_SECONDS)
        self.said.append(line)
        return line

    def end(self) -> None:
        """Stops the program."""
        self.process.terminate()
        self.process.wait(timeout=60)
        self._listener.join(timeout=60)


@contextmanager
def service(program: str, uri: str) -> Iterator[Service]:
    """Starts a program of the example, waits until it is ready, and stops it at the end."""
    running = Service(program, uri)
    try:
        assert "is waiting for" in running.next_line()
        yield running
    finally:
        running.end()


def train(rows: int, uri: str) -> str:
    done = forks.run(
        [str(EXAMPLE / "trainer.py"), str(rows)],
        env={**os.environ, **QUIET, "MLFLOW_TRACKING_URI": uri},
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_numbers(text: str) -> str:
    """Masks the accuracies, which depend on the version of scikit-learn."""
    return re.sub(r"\b0\.\d\d", "0.NN", text)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("kind", KINDS)
def test_versions_are_promoted_and_served_as_the_readme_shows(
    databases: Databases, kind: str, tmp_path: Path
) -> None:
    shown = re.search(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    expected = without_numbers(shown[1]).splitlines()
    rows = [int(found) for found in re.findall(r"^python trainer\.py (\d+)$", README, re.MULTILINE)]
    with ExitStack() as stack:
        server = LocalServer(
            databases(kind).new(tmp_path).uri, directory=tmp_path, start_timeout=PATIENCE_SECONDS
        )
        uri = stack.enter_context(server).url
        scheduler = stack.enter_context(service("scheduler.py", uri))
        predictor = stack.enter_context(service("predictor.py", uri))
        said = []
        for number in rows:
            train(number, uri)
            said.append(scheduler.next_line())
            if "promoted" in said[-1]:
                said.append(predictor.next_line())
        client = Store(uri).client
        stages = {int(one.version): one.current_stage for one in client.search_model_versions("name='ships'")}
    assert [without_numbers(line) for line in said] == expected
    assert stages == {1: "Archived", 2: "Archived", 3: "Production", 4: "Archived"}
    assert predictor.said[-1] == "version 3 answers 1 and 64 rows"
