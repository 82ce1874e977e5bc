"""The agent of a node beside a run of another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forks
import pytest
from programs import QUIET, Remote, Store

PATIENCE = 120
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(remote: Remote, tmp_path: Path) -> Iterator[Start]:
    """Starts an agent, and ends it with the test."""
    started = []
    environ = {**os.environ, **QUIET, "MLFLOW_TRACKING_URI": remote.uri, "TMPDIR": str(tmp_path)}

    def begin(*arguments: str, **more: str) -> subprocess.Popen[str]:
        command = ["-m", "mlflow_sysmetrics.cli", "node-agent", *arguments]
        agent = forks.popen(
            command, env={**environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(agent)
        return agent

    yield begin
    for agent in started:
        if agent.poll() is None:
            agent.kill()
        agent.communicate()


@pytest.fixture
def run_id(remote: Remote) -> str:
    client = Store(remote.uri).client
    return str(client.create_run("0").info.run_id)


def eventually(found: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < ends
        time.sleep(0.1)


def line(agent: subprocess.Popen[str]) -> str:
    assert agent.stdout is not None
    return agent.stdout.readline()


def test_a_node_is_sampled_until_a_signal_and_another_agent_waits_and_goes_on(
    remote: Remote, start: Start, run_id: str
) -> None:
    first = start("--run-id", run_id, "--node-name", "gpu-a01")
    assert line(first).startswith("Sampling this node as gpu-a01")
    second = start("--run-id", run_id, "--node-name", "another-name")
    assert line(second).startswith("Another process samples this node")
    first.send_signal(signal.SIGKILL)
    assert line(second).startswith("Sampling this node as gpu-a01")
    eventually(lambda: remote.keys(run_id))
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 0
    keys = remote.keys(run_id)
    assert {key.rpartition("/")[0] for key in keys} == {"system/gpu-a01"}
    assert not any("/process_" in key for key in keys)  # those would be the agent's own


def test_it_ends_with_the_process_that_it_samples(remote: Remote, start: Start, run_id: str) -> None:
    with subprocess.Popen(SLEEPER) as training:
        agent = start("--pid", str(training.pid), "--node-name", "gpu-a01", MLFLOW_RUN_ID=run_id)
        assert line(agent).startswith("Sampling this node")
        eventually(lambda: "system/gpu-a01/process_threads" in remote.keys(run_id))
        training.kill()
    assert agent.wait(PATIENCE) == 0


def test_a_run_that_the_server_does_not_have_ends_it(start: Start) -> None:
    agent = start("--run-id", "f" * 32)
    _, errors = agent.communicate(timeout=PATIENCE)
    assert (agent.returncode, "has no run" in errors) == (3, True)


def test_a_server_that_is_down_ends_it_after_the_wait(start: Start, remote: Remote, run_id: str) -> None:
    agent = start("--run-id", run_id, "--wait", "0", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    _, errors = agent.communicate(timeout=PATIENCE)
    assert (agent.returncode, "http://127.0.0.1:9 was not reached" in errors) == (4, True)
